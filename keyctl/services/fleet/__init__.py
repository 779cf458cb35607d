"""Compare what files describe with what is stored, make it so, and write such files."""
