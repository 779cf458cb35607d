"""Hold everything that speaks SQL: tables, named queries, transactions and migrations."""
