"""Which use of a refresh token replaced it, so that only that one may be repeated."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade():
    """Add the column; the release before leaves it as it is."""
    uses = sa.Column("replaced_by", postgresql.ARRAY(sa.Text), server_default="{}", nullable=False)
    op.add_column("logins", uses)
