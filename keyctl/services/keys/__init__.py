"""Find, read, change and end keys."""
