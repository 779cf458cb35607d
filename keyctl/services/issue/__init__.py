"""Make new keys."""
