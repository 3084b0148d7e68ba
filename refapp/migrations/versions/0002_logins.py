"""Logins, whose refresh tokens are replaced at each use."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade():
    """Create the table; the release before it knows nothing of it."""
    op.create_table(
        "logins",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("generation", sa.Integer, server_default="0", nullable=False),
        sa.Column("replaced_at", postgresql.ARRAY(TIME), server_default="{}", nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
    )
