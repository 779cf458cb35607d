"""Do what keyctl does: every public method is one transaction, generate and rotate are two."""
