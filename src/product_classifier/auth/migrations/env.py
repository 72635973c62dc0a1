"""Runs migrations on the connection that `auth.migrate` hands over."""

from alembic import context

from product_classifier.auth.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table only by making it anew
)
with context.begin_transaction():
    context.run_migrations()
