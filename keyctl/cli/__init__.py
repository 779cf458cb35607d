"""Parse a command line, call one method of a service, show the answer.  Nobody imports this package."""
