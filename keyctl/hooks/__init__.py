"""Where events are sent when they are committed: web servers, mailboxes, functions."""
