"""Give keys new secrets."""
