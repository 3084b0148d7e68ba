"""Large uploads: in parts, each straight to the object store, which puts them together.

The store alone keeps which parts have arrived. Its id of the collection is handed to the client
and comes back with each request; the store knows it for the one object only.
"""

import uuid

from flask import current_app
from marshmallow import Schema, fields, validate
from sqlalchemy.dialects.postgresql import insert
from webargs.flaskparser import abort

from . import idempotency
from .api import Blueprint
from .auth import protected, user_id
from .extensions import db, store
from .fields import Whole
from .models import Upload
from .uploads import UploadIn, UploadOut, confirmed, described, give_up, never_stored, own, pending

bp = Blueprint("multipart", __name__, description="Large files in the object store")
bp.after_request(never_stored)

PARTS = 1000  # the most that the store takes
PART = 16 * 1024**2  # bytes; the store refuses parts below 5 MiB, but for the last
MOST = 50 * 1024**3
PARTS_ID = validate.Regexp(r"^[\x21-\x7e]{1,512}\Z")


class LargeIn(UploadIn):
    """What will be uploaded in parts."""

    size = Whole(required=True, validate=validate.Range(1, MOST))


class Collection(Schema):
    """How the file is to be cut."""

    parts_id = fields.String(required=True, metadata={"description": "For the other requests."})
    part_size = fields.Integer(required=True, metadata={"description": "Of all but the last."})
    count = fields.Integer(required=True)


class LargeCreated(UploadOut):
    """A file to be sent in parts."""

    multipart = fields.Nested(Collection, required=True)


class WhichParts(Schema):
    """Which addresses are wanted."""

    parts_id = fields.String(required=True, validate=PARTS_ID)
    first = fields.Integer(load_default=1, validate=validate.Range(1, PARTS))
    count = fields.Integer(load_default=100, validate=validate.Range(1, 100))


class Part(Schema):
    """The request that sends a part."""

    number = fields.Integer(required=True)
    method = fields.Constant("PUT")
    url = fields.Url(required=True)
    size = fields.Integer(required=True, metadata={"description": "Bytes, exactly."})


class PartsOut(Schema):
    """Where to send parts, and which have arrived."""

    parts = fields.List(fields.Nested(Part), required=True)
    arrived = fields.List(fields.Integer(), required=True)
    expires_in = fields.Integer(required=True, metadata={"description": "Seconds."})


class WhichCollection(Schema):
    """Which parts to put together."""

    parts_id = fields.String(required=True, validate=PARTS_ID)


def cut(size):
    """Return the sizes of a file's parts: whole MiB and all alike, but for the last."""
    mib = 1024**2
    part = max(PART, -(-size // (PARTS * mib)) * mib)
    full, rest = divmod(size, part)
    return [part] * full + [rest] * bool(rest)


@bp.route("/uploads/multipart", methods=["POST"])
@protected
@bp.arguments(idempotency.Header, location="headers")
@bp.arguments(LargeIn)
@bp.response(201, LargeCreated)
@bp.problems(400, 410, 413, 415, 422, 503)
def create(header, given):
    """Announce a large file; send its parts, then POST to `/uploads/<id>/assemble`."""
    user, upload_id = user_id(), uuid.uuid4()
    key = f"{user}/{upload_id}"
    values = {"id": upload_id, "user_id": user, "object_key": key, **given}
    record = insert(Upload).values(values).on_conflict_do_nothing()
    # Before the store is told: a sweep finds by the row what comes to nothing after this.
    db.run(lambda session: session.execute(record), idempotent=True)
    ids = {"id": str(upload_id), "parts_id": store.start(key, given["content_type"])}

    def work(session):
        print_ = idempotency.fingerprint("POST /uploads/multipart", given)
        answer, _ = idempotency.once(session, user, header["key"], print_, lambda _: None, ids)
        return answer, session.get(Upload, uuid.UUID(answer["id"])), session.get(Upload, upload_id)

    answer, upload, made = db.run(work, idempotent=header["key"] is not None)
    if answer != ids:  # a repeat
        give_up(made)
    sizes = cut(pending(upload).size)
    collection = {"parts_id": answer["parts_id"], "part_size": sizes[0], "count": len(sizes)}
    return described(upload) | {"multipart": collection}


@bp.route("/uploads/<uuid:upload_id>/parts")
@protected
@bp.arguments(WhichParts, location="query")
@bp.response(200, PartsOut)
@bp.problems(404, 410, 422, 503)
def parts(which, upload_id):
    """Give addresses of parts; with what has arrived, so that an upload can be resumed."""
    upload = pending(own(upload_id))
    arrived = store.parts(upload.object_key, which["parts_id"])
    if arrived is None:
        abort(404, message="No such parts_id.")
    sizes = cut(upload.size)
    numbers = range(which["first"], min(which["first"] + which["count"], len(sizes) + 1))
    return {
        "parts": [
            {
                "number": n,
                "url": store.part_url(upload.object_key, which["parts_id"], n, sizes[n - 1]),
                "size": sizes[n - 1],
            }
            for n in numbers
        ],
        "arrived": sorted(arrived),
        "expires_in": current_app.config["UPLOAD_URL_SECONDS"],
    }


@bp.route("/uploads/<uuid:upload_id>/assemble", methods=["POST"])
@protected
@bp.arguments(WhichCollection)
@bp.response(200, UploadOut)
@bp.problems(400, 404, 409, 410, 413, 415, 422, 503)
def assemble(which, upload_id):
    """Put the parts together and confirm the file; may be repeated."""
    upload = pending(own(upload_id))
    if upload.completed_at is None:
        arrived = store.parts(upload.object_key, which["parts_id"])
        if arrived is not None:
            sizes = dict(enumerate(cut(upload.size), 1))
            missing = [n for n, size in sizes.items() if arrived.get(n, {}).get("Size") != size]
            if missing:
                abort(409, message=f"Parts are missing: {missing[:20]}")
            store.assemble(upload.object_key, which["parts_id"], arrived)
        # Else a repeat: they were put together before, and the file is there.
        upload = confirmed(upload)
    return described(upload)
