"""Judge a request: gather the facts, fill in, run every rule."""
