"""When an upload was removed: its row goes once no address that was signed for it holds."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade():
    """Add the column; the release before it deletes rows at once, as it did."""
    op.add_column("uploads", sa.Column("removed_at", sa.DateTime(timezone=True)))
