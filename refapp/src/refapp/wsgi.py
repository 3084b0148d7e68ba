"""The application for WSGI servers, in a process that follows the fleet's settings."""

from .extensions import settings
from .factory import create_app

app = create_app()
settings.start()
