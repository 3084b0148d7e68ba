"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    """The release before this one goes on working after it."""
    ${upgrades if upgrades else "pass"}
