"""What APP_ENV=production changes: as the documentation has it, and as the answers show it."""

import re

import pytest
from conftest import ROOT, build, make_environ

from refapp import config

ROW = re.compile(r"^\| `([A-Z_]+)` \| `([^`]+)` \| `([^`]+)` \|", re.M)


def test_the_table_in_the_documentation_is_the_code():
    text = (ROOT.parent / "docs/patterns.md").read_text()
    section = text.partition("## Production flags")[2].partition("\n## ")[0]
    rows = {
        name: (production, development) for name, production, development in ROW.findall(section)
    }
    assert rows == {
        name: (str(value), str(config.DEVELOPMENT[name]))
        for name, value in config.PRODUCTION.items()
    }
    assert config.PRODUCTION.keys() == config.DEVELOPMENT.keys()


@pytest.mark.parametrize("production", [True, False], ids=["production", "development"])
def test_the_answers_show_it(monkeypatch, environ, production):
    app = build(monkeypatch, environ | {"APP_ENV": "production" if production else "development"})

    @app.get("/fail")
    def fail():
        raise ValueError("inside")

    client = app.test_client()
    assert ("trace" in client.get("/fail").json) is not production
    style = client.get("/static/0123456789ab/app.css")
    assert ("immutable" in style.headers["Cache-Control"]) is production
    cookie = client.get("/login").headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=" if production else "session=")
    assert ("Secure" in cookie) is production
    assert ("\n  " in client.get("/whoami").text) is not production, "JSON is compact"
    assert app.jinja_env.auto_reload is not production


@pytest.mark.parametrize("env", ["production", "staging", "Development", "DEBUG", ""])
def test_no_other_word_is_development(env):
    settings = config.load(make_environ(APP_ENV=env, FLASK_DEBUG="1"))
    assert settings | config.PRODUCTION == settings
