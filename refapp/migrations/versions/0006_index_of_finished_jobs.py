"""An index for prune-jobs, which read the whole table of jobs for each kind."""

from alembic import op

revision = "0006"
down_revision = "0005"

NAME = "jobs_kind_finished_at"


def upgrade():
    """Add the index while jobs are written; one that an interrupted try left is of no use."""
    with op.get_context().autocommit_block():
        # It waits for older transactions, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        op.drop_index(NAME, if_exists=True, postgresql_concurrently=True)
        op.create_index(NAME, "jobs", ["kind", "finished_at"], postgresql_concurrently=True)
        op.execute("RESET lock_timeout")
