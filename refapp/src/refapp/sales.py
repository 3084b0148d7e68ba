"""Sales: written exactly once, and their totals by item, cached here and at the edge."""

import time
import uuid
from urllib.parse import quote

import sqlalchemy as sa
from flask import current_app, request
from marshmallow import Schema, fields, validate
from webargs.flaskparser import abort

from . import idempotency, totals
from .api import Blueprint
from .auth import protected, user_id
from .edge import SECOND
from .extensions import db, edge
from .fields import TEXT, Whole
from .models import Sale, now

bp = Blueprint("sales", __name__, description="Sales and their totals")

# Browsers can't be purged, so they keep a total for a second only. The caches of the edge can,
# and show an old total only while this app can't answer.
EDGE = "public, max-age=1, s-maxage=15, stale-while-revalidate=5, stale-if-error=600"
ITEM = [
    validate.Length(1, 64),
    validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9 ._-]*\Z", error="Letters, digits, space, . _ -"),
]


class SaleIn(Schema):
    """What was sold."""

    item = fields.String(required=True, validate=ITEM)
    amount = Whole(
        required=True,
        validate=validate.Range(1, 1_000_000_000),
        metadata={"description": "In the smallest unit of the currency."},
    )


class SaleOut(Schema):
    """A recorded sale."""

    id = fields.UUID(required=True)
    item = fields.String(required=True)
    amount = fields.Integer(required=True)
    created_at = fields.DateTime(required=True)


class ByKey(Schema):
    """Which key to look for."""

    idempotency_key = fields.String(required=True, validate=[validate.Length(1, 255), TEXT])


class SalesOut(Schema):
    """The sales that were found."""

    count = fields.Integer(required=True)
    sales = fields.List(fields.Nested(SaleOut), required=True)


class TotalIn(Schema):
    """Of which item."""

    item = fields.String(required=True, validate=ITEM)


class TotalOut(Schema):
    """Number and sum of an item's sales."""

    item = fields.String(required=True)
    count = fields.Integer(required=True)
    total = fields.Integer(required=True)


@bp.after_request
def uncached_unless_said(response):
    """Only a total says that it may be kept."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


@bp.route("/sales", methods=["POST"])
@protected
@bp.arguments(idempotency.Header, location="headers")
@bp.arguments(SaleIn)
@bp.response(
    201,
    SaleOut,
    headers={"Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}}},
)
@bp.problems(400, 413, 415, 422, 503)
def create(header, given):
    """Record a sale. The answer of 201 means that it is in the database, once."""
    user = user_id()
    sale = {"id": uuid.uuid4(), "created_at": now(), **given}

    def record(session):
        values = sale | {"user_id": user, "idempotency_key": header["key"]}
        session.execute(sa.insert(Sale).values(values))

    def work(session):
        return idempotency.once(
            session,
            user,
            header["key"],
            idempotency.fingerprint("POST /sales", given),
            record,
            SaleOut().dump(sale),
        )

    body, replayed = db.run(work, idempotent=header["key"] is not None)
    # A replay too: the process that recorded it may have died before it came here.
    totals.forget(given["item"])
    edge.purge(total_path(given["item"]))
    return SaleOut().load(body), 201, {"Idempotency-Replayed": "true"} if replayed else {}


@bp.route("/sales")
@bp.arguments(ByKey, location="query")
@bp.response(200, SalesOut)
@bp.problems(422, 503)
def by_key(given):
    """Find what was recorded under an Idempotency-Key."""
    wanted = sa.select(Sale).where(Sale.idempotency_key == given["idempotency_key"])
    rows = db.run(
        lambda session: session.scalars(wanted.order_by(Sale.created_at)).all(), idempotent=True
    )
    return {"count": len(rows), "sales": rows}


@bp.route("/sales/<uuid:sale_id>")
@bp.response(200, SaleOut)
@bp.problems(404, 503)
def show(sale_id):
    """Show a sale."""
    sale = db.run(lambda session: session.get(Sale, sale_id), idempotent=True)
    if sale is None:
        abort(404, message="No such sale.")
    return sale


@bp.route("/sales/total")
@bp.arguments(TotalIn, location="query")
@bp.response(200, TotalOut)
@bp.problems(422, 503)
def total(given):
    """Sum an item's sales."""
    item = given["item"]
    way = current_app.config["TOTALS"]
    began = time.monotonic()
    found = totals.get(item, way)
    # A purge is by URL, and one item can be spelt in many ways: only one of them is kept. What
    # took long may have been summed before a write, and come after the last purge of it.
    canonical = request.query_string.decode("latin-1") == total_path(item).partition("?")[2]
    recent = time.monotonic() - began < SECOND / 2
    kept = way == "cached" and found["count"] and canonical and recent
    return found, 200, {"Cache-Control": EDGE if kept else "no-store"}


def total_path(item):
    """Return the path of an item's total, as caches know it."""
    return f"/sales/total?item={quote(item, safe='')}"
