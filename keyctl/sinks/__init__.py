"""Where a key string is delivered: one sink, once."""
