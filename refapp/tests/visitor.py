"""A person at a browser, who uses the page: for tests of a local refapp and for those of a fleet.

Needs Chromium and its driver, Debian's packages `chromium` and `chromium-driver`.
"""

import base64
import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

FRONTEND = Path(__file__).resolve().parents[1] / "frontend"
PATIENCE = 60  # seconds
FLAGS = [
    "--headless",
    "--no-sandbox",  # Chromium's own refuses root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # small in containers
    "--no-proxy-server",
]
DESKTOP, PHONE = 1280, 360  # pixels
# The sum of all jumps of the page, and whether anything is wider than the screen.
SHIFT = """
const done = arguments[0];
new PerformanceObserver((list) => done(list.getEntries().reduce((sum, e) => sum + e.value, 0)))
  .observe({ type: "layout-shift", buffered: true });
setTimeout(() => done(0), 500);
"""
TOO_WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"

AUDIT = """
axe.run({ runOnly: ["wcag2a", "wcag2aa"] }).then(({ violations }) => arguments[0](violations));
"""


class Visitor:
    """A browser of its own, that trusts the site's key and nothing else that is unknown."""

    def __init__(self, url, authority, directory):
        self.url = url
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in FLAGS:
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={directory}")
        options.add_argument(f"--ignore-certificate-errors-spki-list={pin(url, authority)}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # By its path: selenium would look for one in the network.
        service = webdriver.ChromeService("/usr/bin/chromedriver")
        self.browser = webdriver.Chrome(options, service)
        self.look()

    def close(self):
        self.browser.quit()

    def open(self, path="/"):
        self.browser.get(self.url + path)

    def find(self, selector):
        """Return the element of a selector as soon as it is there."""
        return self.until(lambda: self.all(selector))[0]

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, check, seconds=PATIENCE):
        """Return the first true answer of `check`; elements may be replaced meanwhile."""
        waiting = WebDriverWait(self.browser, seconds, 0.1, ignored_exceptions=[Exception])
        return waiting.until(lambda _: check())

    def text(self, selector):
        """Return what is to be read in an element now."""
        return self.find(selector).text

    def look(self, width=DESKTOP, height=900, dark=False):
        """Be a screen of this size, in these colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def shoot(self, path):
        """Keep a picture of the whole page."""
        given = {"captureBeyondViewport": True}
        size = self.browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        given["clip"] = {"x": 0, "y": 0, "scale": 1, **{n: size[n] for n in ("width", "height")}}
        data = self.browser.execute_cdp_cmd("Page.captureScreenshot", given)["data"]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(base64.b64decode(data))

    def looks(self):
        """Be a screen of each width in each colour; yields what to call it."""
        for width, kind in ((DESKTOP, "desktop"), (PHONE, "phone")):
            for dark in (False, True):
                self.look(width, dark=dark)
                yield f"{kind}-{'dark' if dark else 'light'}"
        self.look()

    def shoot_all(self, directory, name):
        """Keep pictures at both widths in both colours; nothing may be wider than the screen."""
        for look in self.looks():
            self.shoot(Path(directory) / f"{name}-{look}.png")
            assert self.browser.execute_script(TOO_WIDE) <= 0, f"{name} is too wide: {look}"

    def barriers(self, axe):
        """Return what axe-core finds against WCAG 2 A and AA on this page, however it looks."""
        self.browser.execute_script(axe)
        return [
            f"{look}: {wrong['id']}: {node['html']} {node['failureSummary']}"
            for look in self.looks()
            for wrong in self.browser.execute_async_script(AUDIT)
            for node in wrong["nodes"]
        ]

    @property
    def shift(self):
        """How much of the page has jumped since it was opened; 0.1 is what people begin to mind."""
        return self.browser.execute_async_script(SHIFT)

    def complaints(self):
        """Return what the browser found wrong: refused by the policy, missing, or thrown."""
        return [line["message"] for line in self.browser.get_log("browser")
                if line["level"] == "SEVERE"]  # fmt: skip

    def nameless(self):
        """Return controls that a screen reader has no name for."""
        controls = self.all("a, button, input:not([type=hidden]), select, progress, meter")
        return [each.get_attribute("outerHTML") for each in controls
                if each.is_displayed() and not each.accessible_name]  # fmt: skip

    # What people do.

    def log_in(self, username, password):
        """Log in with the keyboard alone."""
        self.open("/login?next=/")
        self.find("#username").send_keys(username, Keys.TAB, password, Keys.ENTER)
        self.until(lambda: self.text("#who") == username)

    def log_out(self):
        self.find("header form button").click()
        self.until(lambda: self.browser.current_url.endswith("/login"))

    def hosts(self):
        """Return the hosts that have answered requests of the page so far."""
        return {each.text for each in self.all("#requests tbody th")}

    def upload(self, path):
        """Upload a picture, and see it: returns its width as the browser has decoded it."""
        before = len(self.all("#uploads img"))
        self.find("#file").send_keys(str(path))
        self.find("#uploads form button").click()
        self.until(lambda: f"{path.name} is in the store" in self.text("#uploads [role=status]"))
        self.until(lambda: len(self.all("#uploads img")) == min(4, before + 1))
        picture = self.find("#uploads img")
        self.browser.execute_script("arguments[0].scrollIntoView()", picture)
        assert picture.accessible_name == path.name
        return self.until(lambda: int(picture.get_property("naturalWidth")))

    def come_online(self, *others):
        """Have messages connected, to another host than some; returns which one it is."""
        for _ in range(20):
            self.until(lambda: self.text("#messages .state").startswith("Connected"))
            host = self.text("#messages .state").removeprefix("Connected to ")
            if host not in others:
                return host
            self.open()
        raise AssertionError(f"always connected to {host}")

    def say(self, text):
        self.find("#message").send_keys(text, Keys.ENTER)

    def read(self, text):
        """Wait for a message to be kept and shown; returns how often it stands there."""

        def said():
            kept = self.all("#messages .message:not(.sending) .text")
            return sum(each.text == text for each in kept)

        return self.until(said)

    def queue(self, job):
        """Ask for a job by what the page calls it; returns its id."""
        known = {each.get_attribute("data-id") for each in self.all("#jobs-mine > li")}
        Select(self.find("#job")).select_by_visible_text(job)
        self.find("#jobs form button").click()
        new = self.until(
            lambda: {e.get_attribute("data-id") for e in self.all("#jobs-mine > li")} - known
        )
        return new.pop()

    def watch(self, job_id, state, seconds=60):
        """Wait for a job to be in a state; returns the percentages its bar went through."""
        seen = []

        def ended():
            entry = self.find(f"#jobs-mine [data-id='{job_id}']")
            now = entry.get_attribute("data-state")  # before the bar, which goes on meanwhile
            value = float(entry.find_element(By.TAG_NAME, "progress").get_property("value"))
            if value not in seen:
                seen.append(value)
            return now == state

        self.until(ended, seconds)
        return seen

    def sell(self, item, amount):
        """Record a sale; returns what the page says of the total after it."""
        for field, value in (("#item", item), ("#amount", str(amount))):
            self.find(field).clear()
            self.find(field).send_keys(value)
        self.find("#amount").send_keys(Keys.ENTER)
        said = "#totals [role=status]"
        return self.until(lambda: "The total had it" in self.text(said) and self.text(said))

    def compute(self, numbers, target):
        """Have subsets looked for; what comes of it is on the page."""
        for field, value in (("#numbers", numbers), ("#sum", str(target))):
            self.find(field).clear()
            self.find(field).send_keys(value)
        self.find("#sum").send_keys(Keys.ENTER)

    def change(self, setting, value):
        """Change a setting; returns what the page says of its effect."""
        field = self.find(f"#setting-{setting}")
        if isinstance(value, bool):
            if field.is_selected() != value:
                field.send_keys(Keys.SPACE)
        elif field.tag_name == "select":
            Select(field).select_by_visible_text(value)
        else:
            field.clear()
            field.send_keys(value)
        self.find(f"form[data-name={setting}] button").click()
        said = "#settings > [role=status]"
        return self.until(lambda: "In effect" in self.text(said) and self.text(said))


@contextlib.contextmanager
def visitors(url, authority):
    """Yield a function that opens a browser; each is somebody else's, and leaves nothing behind."""
    with contextlib.ExitStack() as stack:

        def visit():
            profile = tempfile.TemporaryDirectory(prefix="visitor-", ignore_cleanup_errors=True)
            visitor = Visitor(url, authority, stack.enter_context(profile))
            return stack.enter_context(contextlib.closing(visitor))

        yield visit


def read_axe(directory):
    """Return the source of axe-core at the version of the lock; npm puts it into a directory."""
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(FRONTEND / name, directory)
    words = ["npm", "ci", "--include=dev", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(words, cwd=directory, check=True, capture_output=True, timeout=300)
    return (Path(directory) / "node_modules/axe-core/axe.min.js").read_text()


def pin(url, authority):
    """Return the hash of a site's key, once its certificate proves to be of the authority."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=authority)
    with (
        socket.create_connection((parts.hostname, parts.port or 443), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as wrapped,
    ):
        certificate = ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True))
    key = run("openssl", "x509", "-noout", "-pubkey", given=certificate.encode())
    der = run("openssl", "pkey", "-pubin", "-outform", "der", given=key)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def run(*command, given):
    """Return what a command makes of its input."""
    return subprocess.run(command, input=given, check=True, capture_output=True).stdout
