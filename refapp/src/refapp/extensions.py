"""What blueprints share; each connects at its first use, none at import."""

from .db import Database
from .edge import Edge
from .redis import Redis
from .settings import Settings
from .store import Store

db = Database()
edge = Edge()
redis = Redis()
settings = Settings()
store = Store()


def init_app(app):
    """Bind every extension to the application."""
    for extension in (db, redis, store, edge):
        extension.init_app(app)
    settings.init_app(app, redis)
