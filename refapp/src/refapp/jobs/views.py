"""Jobs over HTTP: ask for one, watch it, find the dead and try them again."""

import sqlalchemy as sa
from flask import url_for
from flask_jwt_extended import get_jwt
from marshmallow import Schema, ValidationError, fields, validate
from webargs.flaskparser import abort
from werkzeug.exceptions import TooManyRequests

from .. import idempotency
from ..api import Blueprint
from ..auth import protected, user_id
from ..extensions import db
from ..models import Job
from . import gauges, queue  # noqa: F401  importing gauges adds them to /metrics
from .work import KINDS

bp = Blueprint("jobs", __name__, description="Work that outlives the request")

STATES = ["queued", "running", "done", "dead", "expired"]
REQUESTED = sorted(name for name, kind in KINDS.items() if kind.requested)
DAY = 24 * 3600
# Users who are no admins keep others, and cron, from nothing: they are never before them, and of
# theirs no more are open. Requests at the same moment may pass the bound by their number.
MOST = 200
RETRY = 30  # seconds after which it is worth asking again


class JobIn(Schema):
    """What to do, and when."""

    kind = fields.String(required=True, validate=validate.OneOf(REQUESTED))
    args = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        metadata={"description": "As the kind wants them.", "additionalProperties": True},
    )
    priority = fields.Integer(
        load_default=0,
        strict=True,
        validate=validate.Range(-100, 100),
        metadata={"description": "The highest is run first. Above 0 only for admins."},
    )
    delay = fields.Integer(
        load_default=0,
        strict=True,
        validate=validate.Range(0, 30 * DAY),
        metadata={"description": "Seconds before which it is not run."},
    )
    ttl = fields.Integer(
        load_default=None,
        strict=True,
        validate=validate.Range(1, 60 * DAY),
        metadata={"description": "Seconds after which it is not started any more."},
    )
    time_limit = fields.Integer(
        load_default=None,
        strict=True,
        validate=validate.Range(1, 600),
        metadata={"description": "Seconds that an attempt may take; at most the kind's own."},
    )
    max_attempts = fields.Integer(load_default=None, strict=True, validate=validate.Range(1, 10))


class JobOut(Schema):
    """A job."""

    id = fields.UUID(required=True)
    kind = fields.String(required=True)
    args = fields.Dict(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    priority = fields.Integer(required=True)
    progress = fields.Integer(required=True, metadata={"description": "Percent."})
    message = fields.String(allow_none=True)
    result = fields.Dict(allow_none=True)
    error = fields.String(
        allow_none=True, metadata={"description": "Of the last attempt that failed."}
    )
    failures = fields.Integer(required=True)
    max_attempts = fields.Integer(required=True)
    time_limit = fields.Integer(required=True)
    host = fields.String(allow_none=True, metadata={"description": "That started it last."})
    created_at = fields.DateTime(required=True)
    run_at = fields.DateTime(required=True)
    expires_at = fields.DateTime(allow_none=True)
    started_at = fields.DateTime(allow_none=True)
    finished_at = fields.DateTime(allow_none=True)


class Filter(Schema):
    """Which jobs to list."""

    state = fields.String(load_default=None, validate=validate.OneOf(STATES))
    kind = fields.String(load_default=None, validate=validate.OneOf(sorted(KINDS)))
    mine = fields.Boolean(
        load_default=False, metadata={"description": "Only what the user asked for."}
    )
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200))
    before = fields.Integer(
        load_default=None,
        validate=validate.Range(1, 2**63 - 1),
        metadata={"description": "`next` of the page before."},
    )


class Page(Schema):
    """Jobs, newest first."""

    jobs = fields.List(fields.Nested(JobOut), required=True)
    next = fields.Integer(
        required=True, allow_none=True, metadata={"description": "null on the last page."}
    )


@bp.after_request
def never_stored(response):
    """A job changes by itself."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.route("/jobs", methods=["POST"])
@protected
@bp.arguments(idempotency.Header, location="headers")
@bp.arguments(JobIn)
@bp.response(
    202,
    JobOut,
    headers={
        "Location": {"schema": {"type": "string"}},
        "Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}},
    },
)
@bp.problems(400, 413, 415, 422, 429, 503)
def create(header, given):
    """Ask for a job. The answer of 202 means that it is in the database, and will be run.

    Users who are no admins may have 200 that are queued or running.
    """
    check(given)
    user = user_id()
    job = queue.describe(user_id=user, **given)

    def enqueue(session):
        bound(session)
        queue.enqueue(session, job)

    def work(session):
        return idempotency.once(
            session,
            user,
            header["key"],
            idempotency.fingerprint("POST /jobs", given),
            enqueue,
            JobOut().dump(job),
        )

    body, replayed = db.run(work, idempotent=header["key"] is not None)
    headers = {"Location": url_for("jobs.show", job_id=body["id"])}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JobOut().load(body), 202, headers


def check(given):
    """Hold what was asked for to what its kind allows."""
    kind = KINDS[given["kind"]]
    try:
        kind.schema.load(given["args"])
    except ValidationError as error:
        abort(422, errors={"json": {"args": error.normalized_messages()}})
    if given["priority"] > 0 and not is_admin():
        abort(422, errors={"json": {"priority": ["Above 0 only for admins."]}})
    if (given["time_limit"] or 0) > kind.time_limit:
        abort(422, errors={"json": {"time_limit": [f"Must be at most {kind.time_limit}."]}})


def bound(session):
    """Refuse one more job to a user who has too many."""
    if not is_admin() and queue.count_open(session, user_id(), MOST) >= MOST:
        raise TooManyRequests(f"{MOST} of your jobs are not done yet.", retry_after=RETRY)


@bp.route("/jobs")
@protected
@bp.arguments(Filter, location="query")
@bp.response(200, Page)
@bp.problems(422, 503)
def index(given):
    """List jobs: the user's own, or everybody's and cron's for an admin."""
    wanted = visible(sa.select(Job)).order_by(Job.number.desc()).limit(given["limit"] + 1)
    for name in ("state", "kind"):
        if given[name]:
            wanted = wanted.where(getattr(Job, name) == given[name])
    if given["mine"]:
        wanted = wanted.where(Job.user_id == user_id())
    if given["before"]:
        wanted = wanted.where(Job.number < given["before"])
    rows = db.run(lambda session: session.scalars(wanted).all(), idempotent=True)
    page = rows[: given["limit"]]
    return {"jobs": page, "next": page[-1].number if len(rows) > len(page) else None}


@bp.route("/jobs/<uuid:job_id>")
@protected
@bp.response(200, JobOut)
@bp.problems(404, 503)
def show(job_id):
    """Show a job."""
    return find(job_id)


@bp.route("/jobs/<uuid:job_id>/retry", methods=["POST"])
@protected
@bp.response(202, JobOut)
@bp.problems(404, 409, 429, 503)
def retry(job_id):
    """Give a dead job all its attempts again."""
    find(job_id)

    def work(session):
        bound(session)
        return queue.retry(session, job_id)

    job = db.run(work, idempotent=True)
    if job is None:
        job = find(job_id)
        abort(409, message=f"The job is {job.state}, not dead.")
    return job


def find(job_id):
    """Return a job that the user may see; another does not exist."""
    wanted = visible(sa.select(Job).where(Job.id == job_id))
    job = db.run(lambda session: session.scalar(wanted), idempotent=True)
    if job is None:
        abort(404, message="No such job.")
    return job


def visible(query):
    """Restrict a query to what the user may see."""
    return query if is_admin() else query.where(Job.user_id == user_id())


def is_admin():
    """Return whether the token is an admin's."""
    return "admin" in get_jwt().get("roles", [])
