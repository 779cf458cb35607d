"""Send committed events to web servers, mailboxes and functions."""
