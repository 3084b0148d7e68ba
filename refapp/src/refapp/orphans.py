"""Files that were announced and never confirmed, or removed; a job sweeps them."""

from datetime import timedelta

import sqlalchemy as sa

from .models import Upload, now
from .uploads import PENDING

# Addresses signed just before the end of PENDING must have expired, hosts' clocks may differ.
MARGIN = timedelta(hours=1)
BATCH = 500


def sweep_orphans(session, store, older_than=PENDING + MARGIN):
    """Remove uploads pending for longer than `older_than` (a timedelta), and those that their
    users removed before MARGIN; return how many.

    At most BATCH at once, oldest first. Commits each one by itself: no transaction stays open
    while the store works, and a sweep that dies, or runs twice, leaves nothing half done.
    Raises ValueError for a time in which clients may still send, StoreAway when the store is.
    """
    if older_than < PENDING + MARGIN:
        raise ValueError(f"older_than must be at least {PENDING + MARGIN}")
    late = sa.and_(Upload.completed_at.is_(None), Upload.created_at < now() - older_than)
    old = sa.select(Upload.id, Upload.object_key).where(
        sa.or_(late, Upload.removed_at < now() - MARGIN)
    )
    found = session.execute(old.order_by(Upload.created_at).limit(BATCH)).all()
    session.commit()
    swept = 0
    for upload_id, key in found:
        # The row goes last: without it nobody would find what is left.
        store.discard(key)
        unused = sa.or_(Upload.completed_at.is_(None), Upload.removed_at.is_not(None))
        gone = sa.delete(Upload).where(Upload.id == upload_id, unused)
        swept += len(session.execute(gone.returning(Upload.id)).all())
        session.commit()
    return swept
