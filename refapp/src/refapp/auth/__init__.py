"""Log in with a name and a password, then with tokens that any process of any host can check.

passwords.py   argon2, and the same work for a name that nobody has
attempts.py    how many wrong passwords the whole fleet takes in a minute
logins.py      a login's refresh tokens: each replaced at its use, a stolen one noticed
standing.py    whether a login still stands: what logging out changes at once
tokens.py      JWT: what they say, which keys sign them, who may pass
views.py       the endpoints
"""

from ..fields import TEXT
from .passwords import hasher
from .tokens import access_token, init_app, protected, refuse, user_id
from .views import bp

__all__ = [
    "TEXT",
    "access_token",
    "bp",
    "hasher",
    "init_app",
    "protected",
    "refuse",
    "user_id",
]
