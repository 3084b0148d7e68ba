"""A browser without a screen: keeps cookies and sends forms, and runs no script."""

import re

from conftest import ADMIN_PASSWORD

NAME = "__Host-session"
HTTPS = {"base_url": "https://site.example"}


class Browser:
    """Keeps cookies, fills in forms, and may ask another process each time."""

    def __init__(self, *apps):
        self.clients = [app.test_client(use_cookies=False) for app in apps]
        self.cookies = {}
        self.turn = 0

    def send(self, method, path, **options):
        self.turn += 1
        client = self.clients[self.turn % len(self.clients)]
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        headers |= options.pop("headers", {})
        answer = client.open(path, method=method, headers=headers, **HTTPS, **options)
        for line in answer.headers.getlist("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    def get(self, path, **options):
        return self.send("GET", path, **options)

    def submit(self, page, path, **fields):
        """Send the form of a page, with the token that stands in it."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.get(page).text)[1]
        return self.send("POST", path, data={"csrf_token": token, **fields})

    def log_in(self, **fields):
        fields = {"username": "admin", "password": ADMIN_PASSWORD, **fields}
        return self.submit("/login", "/login", **fields)

    @property
    def id(self):
        return self.cookies.get(NAME)
