"""Deliver a key string to one sink, once."""
