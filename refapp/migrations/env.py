"""Alembic's entry: refapp.migrate gives it the connection that holds the lock."""

from alembic import context
from refapp.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # One that waits for a busy table keeps no lock of those before it.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
