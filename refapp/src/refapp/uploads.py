"""Uploads: clients send bytes straight to the object store; the database keeps the address."""

import contextlib
import uuid
from datetime import timedelta

import sqlalchemy as sa
from flask import current_app
from marshmallow import Schema, fields, validate
from webargs.flaskparser import abort

from . import idempotency
from .api import Blueprint
from .auth import protected, user_id
from .extensions import db, store
from .fields import Text, Whole
from .models import Upload, now
from .store import StoreAway

bp = Blueprint("uploads", __name__, description="Files in the object store")

# After so long a file that was announced is neither signed for nor confirmed any more, so that
# orphans.py can sweep it: nobody else will touch it.
PENDING = timedelta(days=1)

# No slashes, no control characters.
FILENAME = Text(r"^[^/\\\x00-\x1f\x7f]+\Z")


class UploadIn(Schema):
    """What will be uploaded."""

    filename = fields.String(
        required=True,
        validate=[validate.Length(1, 200), FILENAME],
    )
    content_type = fields.String(
        required=True,
        validate=[validate.Length(3, 100), validate.Regexp(r"^[a-z0-9.+-]+/[a-z0-9.+-]+\Z")],
    )
    size = Whole(
        required=True,
        validate=validate.Range(1, 5 * 1024**3),
        metadata={"description": "Bytes; the address accepts exactly so many."},
    )


class UploadOut(Schema):
    """A file, and the address to get it from once it is complete."""

    id = fields.UUID(required=True)
    filename = fields.String(required=True)
    content_type = fields.String(required=True)
    size = fields.Integer(required=True)
    status = fields.String(required=True, validate=validate.OneOf(["pending", "complete"]))
    created_at = fields.DateTime(required=True)
    completed_at = fields.DateTime(allow_none=True)
    etag = fields.String(
        allow_none=True,
        metadata={"description": "As confirmed; the address for sending holds for a while yet."},
    )
    get_url = fields.Url(metadata={"description": "Only when complete; expires."})
    expires_in = fields.Integer(metadata={"description": "Seconds."})


class Wanted(Schema):
    """How many files to list."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))


class Uploads(Schema):
    """Files, newest first."""

    uploads = fields.List(fields.Nested(UploadOut), required=True)


class Put(Schema):
    """The request to make to the object store."""

    method = fields.Constant("PUT")
    url = fields.Url(required=True)
    headers = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    expires_in = fields.Integer(required=True)


class UploadCreated(UploadOut):
    """A file to be sent."""

    upload = fields.Nested(Put, required=True)


@bp.after_request
def never_stored(response):
    """Signed addresses stay out of every cache."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/uploads", methods=["POST"])
@protected
@bp.arguments(idempotency.Header, location="headers")
@bp.arguments(UploadIn)
@bp.response(201, UploadCreated)
@bp.problems(400, 410, 413, 415, 422, 503)
def create(header, given):
    """Announce a file; the answer says how to send it, then POST to `/uploads/<id>/complete`."""
    user = user_id()
    upload_id = uuid.uuid4()

    def record(session):
        values = {"id": upload_id, "user_id": user, "object_key": f"{user}/{upload_id}", **given}
        session.execute(sa.insert(Upload).values(values))

    def work(session):
        print_ = idempotency.fingerprint("POST /uploads", given)
        answer, _ = idempotency.once(
            session, user, header["key"], print_, record, {"id": str(upload_id)}
        )
        # Only the id is kept for a repeat: its address is signed anew, the first may be old.
        return session.get(Upload, uuid.UUID(answer["id"]))

    upload = pending(db.run(work, idempotent=header["key"] is not None))
    put = {
        "url": store.put_url(upload.object_key, upload.content_type, upload.size),
        "headers": {"Content-Type": upload.content_type},
        "expires_in": current_app.config["UPLOAD_URL_SECONDS"],
    }
    return described(upload) | {"upload": put}


@bp.route("/uploads")
@protected
@bp.arguments(Wanted, location="query")
@bp.response(200, Uploads)
@bp.problems(422, 503)
def index(wanted):
    """List the user's own files that are complete."""
    own = sa.and_(Upload.user_id == user_id(), Upload.removed_at.is_(None))
    complete = sa.select(Upload).where(own, Upload.completed_at.is_not(None))
    latest = complete.order_by(Upload.completed_at.desc())
    found = db.run(
        lambda session: session.scalars(latest.limit(wanted["limit"])).all(), idempotent=True
    )
    return {"uploads": [described(upload) for upload in found]}


@bp.route("/uploads/<uuid:upload_id>")
@protected
@bp.response(200, UploadOut)
@bp.problems(404, 503)
def show(upload_id):
    """Show a file of the user's own, with an address to get it from."""
    return described(own(upload_id))


@bp.route("/uploads/<uuid:upload_id>/complete", methods=["POST"])
@protected
@bp.response(200, UploadOut)
@bp.problems(404, 409, 410, 503)
def complete(upload_id):
    """Confirm that the file has arrived; may be repeated."""
    upload = pending(own(upload_id))
    if upload.completed_at is None:
        upload = confirmed(upload)
    return described(upload)


@bp.route("/uploads/<uuid:upload_id>", methods=["DELETE"])
@protected
@bp.response(204)
@bp.problems(404, 503)
def remove(upload_id):
    """Remove a file, or give up one that was announced, parts of it included."""
    give_up(own(upload_id))


def give_up(upload):
    """Hide an upload and discard it; addresses that were signed may bring it back for a while.

    The row stays until they have expired: a sweep then discards what there is once more.
    """
    gone = sa.update(Upload).where(Upload.id == upload.id).values(removed_at=now())
    db.run(lambda session: session.execute(gone), idempotent=True)
    with contextlib.suppress(StoreAway):
        store.discard(upload.object_key)


def confirmed(upload):
    """Return an upload as complete, or end the request with 409 if the store has it not so."""
    found = store.head(upload.object_key)
    if found is None:
        abort(409, message="The object store does not have the file yet.")
    if found["size"] != upload.size:
        abort(409, message=f"The file has {found['size']} bytes, not {upload.size}.")
    change = (
        sa.update(Upload)
        .where(Upload.id == upload.id, Upload.completed_at.is_(None), Upload.removed_at.is_(None))
        .values(completed_at=now(), etag=found["etag"])
    )
    db.run(lambda session: session.execute(change), idempotent=True)
    return own(upload.id)


def pending(upload):
    """Return an upload that is complete or may still become so, else end the request with 410."""
    if upload is None or upload.removed_at:
        abort(410, message="The file is gone. Announce it anew.")
    if upload.completed_at is None and upload.created_at < now() - PENDING:
        abort(410, message="The file was not sent in time. Announce it anew.")
    return upload


def own(upload_id):
    """Return an upload of the user; someone else's does not exist."""
    wanted = sa.select(Upload).where(Upload.id == upload_id, Upload.user_id == user_id())
    upload = db.run(lambda session: session.scalar(wanted), idempotent=True)
    if upload is None or upload.removed_at:
        abort(404, message="No such upload.")
    return upload


def described(upload):
    """Return what UploadOut describes."""
    names = ["id", "filename", "content_type", "size", "created_at", "completed_at", "etag"]
    body = {name: getattr(upload, name) for name in names}
    body["status"] = "complete" if upload.completed_at else "pending"
    if upload.completed_at:
        body["get_url"] = store.get_url(upload.object_key, upload.filename)
        body["expires_in"] = current_app.config["UPLOAD_URL_SECONDS"]
    return body
