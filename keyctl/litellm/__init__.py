"""What LiteLLM's rows mean here: pure functions from a row to request values.  No database, no clock."""
