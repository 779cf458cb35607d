"""Turn LiteLLM's rows into request values, by pure functions.  No database, no clock."""
