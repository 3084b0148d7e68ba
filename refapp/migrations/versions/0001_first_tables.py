"""First tables: users, sales, idempotency keys, uploads, seeds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def created_at(**more):
    """Return the column that every table has."""
    return sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        server_default=sa.func.now(),
        nullable=False,
        **more,
    )


def upgrade():
    """Create them."""
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text), server_default="{}", nullable=False),
        created_at(),
    )
    op.create_table(
        "sales",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id")),
        sa.Column("idempotency_key", sa.Text),
        created_at(),
    )
    op.create_index("sales_item_amount", "sales", ["item"], postgresql_include=["amount"])
    op.create_index("sales_idempotency_key", "sales", ["idempotency_key"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("response", postgresql.JSONB, nullable=False),
        created_at(index=True),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id"), nullable=False, index=True),
        sa.Column("object_key", sa.Text, nullable=False, unique=True),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("etag", sa.Text),
        created_at(),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
    )
    op.create_table("seeds", sa.Column("name", sa.Text, primary_key=True), created_at())
