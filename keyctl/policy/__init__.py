"""Say what is allowed: documents, facts, and rules that are pure functions from facts to violations."""
