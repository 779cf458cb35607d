"""Import users, teams and keys from LiteLLM."""
