"""The application for WSGI servers."""

from .factory import create_app

app = create_app()
