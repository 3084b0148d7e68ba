"""Rows that a new database starts with, each set inserted once in its life."""

import logging

import sqlalchemy as sa

from .auth import hasher

log = logging.getLogger(__name__)

# The same 100,000 sales in every fleet, so that totals can be compared.
SALES = """
INSERT INTO sales (id, item, amount, created_at)
SELECT md5('sale ' || n)::uuid,
       'item-' || (n % 100 + 1),
       (n::bigint * 7919) % 10000 + 1,
       timestamptz '2025-01-01 00:00:00+00' + n * interval '5 minutes'
FROM generate_series(1, 100000) AS n
"""


def run(connection, admin_password):
    """Seed sales, and the first user."""
    if once(connection, "sales"):
        connection.execute(sa.text(SALES))
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        # Index-only reads of totals need the visibility map.
        connection.execute(sa.text("VACUUM ANALYZE sales"))
        log.info("sales seeded")
    if once(connection, "admin"):
        connection.execute(
            sa.text(
                "INSERT INTO users (id, username, password_hash, roles) "
                "VALUES (gen_random_uuid(), 'admin', :hash, '{admin}') "
                "ON CONFLICT (username) DO NOTHING"
            ),
            {"hash": hasher.hash(admin_password)},
        )
        log.info("admin created")
    connection.commit()


def once(connection, name):
    """Return whether this seed is new, and record it in the transaction that seeds."""
    added = connection.execute(
        sa.text("INSERT INTO seeds (name) VALUES (:name) ON CONFLICT DO NOTHING RETURNING name"),
        {"name": name},
    )
    return added.first() is not None
