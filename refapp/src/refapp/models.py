"""Tables. Changes follow expand, deploy, contract: the release before must go on working."""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql


def now():
    """Return the time with its zone."""
    return datetime.now(UTC)


class Base(orm.DeclarativeBase):
    """Declarative base of every table."""

    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it from the class
        datetime: sa.DateTime(timezone=True),
        dict: postgresql.JSONB,
        list[str]: postgresql.ARRAY(sa.Text),
        str: sa.Text,
    }


class User(Base):
    """Someone who can log in."""

    __tablename__ = "users"

    id: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True, default=uuid.uuid4)
    username: orm.Mapped[str] = orm.mapped_column(unique=True)
    password_hash: orm.Mapped[str]
    roles: orm.Mapped[list[str]] = orm.mapped_column(server_default="{}")
    created_at: orm.Mapped[datetime] = orm.mapped_column(default=now, server_default=sa.func.now())


class Login(Base):
    """A login, and which of its refresh tokens is the one to be used next; see auth/logins.py."""

    __tablename__ = "logins"

    id: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True, default=uuid.uuid4)
    user_id: orm.Mapped[uuid.UUID] = orm.mapped_column(sa.ForeignKey("users.id"), index=True)
    # Counts the tokens that were replaced.
    generation: orm.Mapped[int] = orm.mapped_column(server_default="0", default=0)
    # When the last few were, newest last.
    replaced_at: orm.Mapped[list[datetime]] = orm.mapped_column(
        postgresql.ARRAY(sa.DateTime(timezone=True)), server_default="{}", default=list
    )
    # Hashes of the Idempotency-Keys that they were replaced with, in the same order.
    replaced_by: orm.Mapped[list[str]] = orm.mapped_column(server_default="{}", default=list)
    issued_at: orm.Mapped[datetime]
    expires_at: orm.Mapped[datetime]
    ended_at: orm.Mapped[datetime | None]
    created_at: orm.Mapped[datetime]


class Sale(Base):
    """A sale; amounts are whole numbers of the smallest unit, so that totals are exact."""

    __tablename__ = "sales"
    __table_args__ = (
        # Totals by item are read from this index alone.
        sa.Index("sales_item_amount", "item", postgresql_include=["amount"]),
        sa.Index("sales_idempotency_key", "idempotency_key"),
    )

    id: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True, default=uuid.uuid4)
    item: orm.Mapped[str]
    amount: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    user_id: orm.Mapped[uuid.UUID | None] = orm.mapped_column(sa.ForeignKey("users.id"))
    # Not unique here: that each key was applied once is the table below's promise, and a
    # test counts rows by key to hold it to that.
    idempotency_key: orm.Mapped[str | None]
    created_at: orm.Mapped[datetime] = orm.mapped_column(default=now, server_default=sa.func.now())


class IdempotencyKey(Base):
    """The first answer to a request, committed together with what the request did."""

    __tablename__ = "idempotency_keys"

    user_id: orm.Mapped[uuid.UUID] = orm.mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    key: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    fingerprint: orm.Mapped[str]
    response: orm.Mapped[dict]
    created_at: orm.Mapped[datetime] = orm.mapped_column(
        default=now, server_default=sa.func.now(), index=True
    )


class Upload(Base):
    """A file in the object store: its address, not its bytes."""

    __tablename__ = "uploads"

    id: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True, default=uuid.uuid4)
    user_id: orm.Mapped[uuid.UUID] = orm.mapped_column(sa.ForeignKey("users.id"), index=True)
    object_key: orm.Mapped[str] = orm.mapped_column(unique=True)
    filename: orm.Mapped[str]
    content_type: orm.Mapped[str]
    size: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    etag: orm.Mapped[str | None]
    created_at: orm.Mapped[datetime] = orm.mapped_column(default=now, server_default=sa.func.now())
    completed_at: orm.Mapped[datetime | None]
    # Gone for its user; orphans.py deletes the row, and what arrived meanwhile.
    removed_at: orm.Mapped[datetime | None]


OPEN = sa.text("state IN ('queued', 'running')")  # of jobs; word for word as the index has it


class Job(Base):
    """A job as its owner sees it; Procrastinate's tables hold who runs it when."""

    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index("jobs_state_number", "state", "number"),
        sa.Index("jobs_user_id_number", "user_id", "number"),
        sa.Index("jobs_kind_finished_at", "kind", "finished_at"),
        # A user's own are counted before each new one, whatever else is in the table.
        sa.Index("jobs_open", "user_id", postgresql_where=OPEN),
    )

    id: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True, default=uuid.uuid4)
    # The order of lists, and their cursor.
    number: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), unique=True)
    user_id: orm.Mapped[uuid.UUID | None] = orm.mapped_column(sa.ForeignKey("users.id"))
    kind: orm.Mapped[str]
    args: orm.Mapped[dict]
    priority: orm.Mapped[int]
    time_limit: orm.Mapped[int]  # seconds, of each attempt
    max_attempts: orm.Mapped[int]
    run_at: orm.Mapped[datetime]
    expires_at: orm.Mapped[datetime | None]
    # The id of the only queue entry that may run it: an older one, in the hands of a process
    # that was thought dead, does nothing.
    delivery: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger, unique=True)
    state: orm.Mapped[str] = orm.mapped_column(default="queued", server_default="queued")
    # Counts every start. What a start wants to write it may only while no later one was made.
    starts: orm.Mapped[int] = orm.mapped_column(default=0, server_default="0")
    failures: orm.Mapped[int] = orm.mapped_column(default=0, server_default="0")
    progress: orm.Mapped[int] = orm.mapped_column(default=0, server_default="0")
    message: orm.Mapped[str | None]
    result: orm.Mapped[dict | None]
    error: orm.Mapped[str | None]
    host: orm.Mapped[str | None]
    created_at: orm.Mapped[datetime] = orm.mapped_column(default=now, server_default=sa.func.now())
    started_at: orm.Mapped[datetime | None]
    finished_at: orm.Mapped[datetime | None]


class CronLease(Base):
    """One row: who enqueues the ticks, until when, and how often that has changed."""

    __tablename__ = "cron_lease"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    holder: orm.Mapped[str]
    host: orm.Mapped[str]
    epoch: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    since: orm.Mapped[datetime]
    until: orm.Mapped[datetime]


class CronSchedule(Base):
    """Up to when a schedule's ticks were enqueued."""

    __tablename__ = "cron_schedules"

    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    last_tick: orm.Mapped[datetime]


class CronTick(Base):
    """A tick that was enqueued; its key keeps it from being so twice."""

    __tablename__ = "cron_ticks"
    __table_args__ = (sa.Index("cron_ticks_tick", "tick"),)

    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    tick: orm.Mapped[datetime] = orm.mapped_column(primary_key=True)
    epoch: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    host: orm.Mapped[str]
    job_id: orm.Mapped[uuid.UUID]
    enqueued_at: orm.Mapped[datetime] = orm.mapped_column(default=now, server_default=sa.func.now())
