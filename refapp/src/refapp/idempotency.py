"""A POST with an Idempotency-Key is applied once, however often and wherever it arrives."""

import hashlib
import json
from datetime import timedelta

import sqlalchemy as sa
from marshmallow import EXCLUDE, Schema, fields, validate
from sqlalchemy.dialects.postgresql import insert
from webargs.flaskparser import abort

from .models import IdempotencyKey

KEPT = timedelta(days=2)  # then cron prunes it, and a repeat would be a new request


class Header(Schema):
    """The header that makes a POST safe to repeat."""

    class Meta:
        """Other headers are none of ours."""

        unknown = EXCLUDE

    key = fields.String(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r"^[\x21-\x7e]{1,255}\Z", error="1 to 255 visible ASCII characters."
        ),
        metadata={
            "description": "Repeats with the same key get the first answer: those of sales, "
            "uploads and jobs for two days."
        },
    )


def fingerprint(operation, given):
    """Return a hash that tells two requests with one key apart."""
    text = json.dumps([operation, given], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def once(session, user_id, key, print_, work, response):
    """Run work(session), or not when the key was used; return (response, whether replayed).

    The key is inserted first: of two at the same time the second waits here for the first to
    commit. It commits with the work, so neither is ever there without the other.
    """
    if key is None:
        work(session)
        return response, False
    added = session.execute(
        insert(IdempotencyKey)
        .values(user_id=user_id, key=key, fingerprint=print_, response=response)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.key)
    )
    if added.first():  # an ORM insert's rowcount says nothing
        work(session)
        return response, False
    first = session.execute(
        sa.select(IdempotencyKey.fingerprint, IdempotencyKey.response).where(
            IdempotencyKey.user_id == user_id, IdempotencyKey.key == key
        )
    ).one()
    if first.fingerprint != print_:
        abort(422, errors={"headers": {"Idempotency-Key": ["Used for another request."]}})
    return first.response, True
