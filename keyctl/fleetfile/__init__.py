"""Read and write fleet files: what should exist, as a text that people review.  Pure."""
