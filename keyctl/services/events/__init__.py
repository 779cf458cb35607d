"""Send the events in the outbox."""
