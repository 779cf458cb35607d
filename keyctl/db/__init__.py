"""The database: tables, named queries, transactions and migrations."""
