"""Jobs, the queue that delivers them (Procrastinate's own schema, as of 3.10), and cron."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

# A copy, not the installed package's: a migration does the same for ever. A newer
# Procrastinate brings its own changes, for a migration of their own.
QUEUE = Path(__file__).parents[1] / "sql/procrastinate-3.10.sql"

now = sa.func.now()


def upgrade():
    """Create them."""
    # Several statements, with % and : in them: past everything that would read those.
    op.get_bind().connection.driver_connection.execute(QUEUE.read_text())
    create_jobs()
    create_cron()


def create_jobs():
    """Create what a job is, as its owner sees it."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False, unique=True),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id")),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("args", postgresql.JSONB, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("time_limit", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("delivery", sa.BigInteger, unique=True),
        sa.Column("state", sa.Text, server_default="queued", nullable=False),
        sa.Column("starts", sa.Integer, server_default="0", nullable=False),
        sa.Column("failures", sa.Integer, server_default="0", nullable=False),
        sa.Column("progress", sa.Integer, server_default="0", nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("result", postgresql.JSONB),
        sa.Column("error", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'dead', 'expired')", name="jobs_state"
        ),
    )
    op.create_index("jobs_state_number", "jobs", ["state", "number"])
    op.create_index("jobs_user_id_number", "jobs", ["user_id", "number"])


def create_cron():
    """Create the lease of the leader, and what it has enqueued."""
    op.create_table(
        "cron_lease",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute("INSERT INTO cron_lease VALUES (1, '', '', 0, now(), now())")
    op.create_table(
        "cron_schedules",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("last_tick", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "cron_ticks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("tick", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
    )
    op.create_index("cron_ticks_tick", "cron_ticks", ["tick"])
