"""The state of the database's schema, compared with what this release's code needs."""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

PACKAGE = Path(__file__).resolve().parent


class NotMigratedError(Exception):
    """The migrations of this release have not run."""

    reason = "not migrated"


def alembic_config():
    """Return Alembic's settings: migrations lie in the wheel, or beside src/ in a source tree."""
    inside, beside = PACKAGE / "migrations", PACKAGE.parents[1] / "migrations"
    config = Config()
    config.set_main_option("script_location", str(inside if inside.is_dir() else beside))
    return config


@cache
def revisions():
    """Return the ids of the migrations that this release knows, newest first."""
    return [r.revision for r in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


def check(engine):
    """Raise unless the database answers and has our schema, or that of a newer release."""
    with engine.connect() as connection:
        found = connection.scalar(sa.text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        version = found and connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    known = revisions()
    # A version that is not among ours was made by a newer release: that is what expanding
    # before the deploy looks like from the old one.
    if not version or (version in known and version != known[0]):
        raise NotMigratedError
