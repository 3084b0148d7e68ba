"""An index of the jobs that are not done, by user: how many one may have is bounded."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

OPEN = sa.text("state IN ('queued', 'running')")


def upgrade():
    """Create it; writes wait meanwhile, a moment: the table is pruned, and few of it are open."""
    op.create_index("jobs_open", "jobs", ["user_id"], postgresql_where=OPEN)
