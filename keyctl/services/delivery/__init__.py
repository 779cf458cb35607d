"""Stage, deliver and confirm a key string, whatever the sink."""
