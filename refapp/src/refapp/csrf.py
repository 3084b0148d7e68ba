"""Every form proves that it came from our own page, by a token that the session knows."""

from flask_wtf.csrf import CSRFProtect

csrf = CSRFProtect()


def init_app(app):
    """Check every request that changes something, except those of the API.

    The API looks at no cookie, so no other site can make a browser use it for its user.
    """
    app.config.update(
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        # The token suffices; a browser that hides where it comes from is not shut out.
        WTF_CSRF_SSL_STRICT=False,
    )
    csrf.init_app(app)
