"""Indexes of jobs: for prune-jobs, which read all of it, and to bound what a user has open."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

OPEN = sa.text("state IN ('queued', 'running')")


def upgrade():
    """Add them while jobs are written; one that an interrupted try left is of no use."""
    with op.get_context().autocommit_block():
        # They wait for older transactions, and nobody waits for them.
        op.execute("SET lock_timeout = 0")
        add("jobs_kind_finished_at", ["kind", "finished_at"])
        add("jobs_open", ["user_id"], postgresql_where=OPEN)
        op.execute("RESET lock_timeout")


def add(name, columns, **options):
    """Create an index, in place of what is left of it."""
    op.drop_index(name, if_exists=True, postgresql_concurrently=True)
    op.create_index(name, "jobs", columns, postgresql_concurrently=True, **options)
