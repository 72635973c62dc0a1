"""Alembic's scripts: run by `auth.migrate` at every start, never by hand."""
