"""What the configuration file may say."""
