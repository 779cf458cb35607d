"""Hold what the configuration file may say, and read it."""
