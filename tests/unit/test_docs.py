"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "refapp/README.md")
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), *(ROOT / page for page in PAGES)]
FILES = [path for tests in ("tests", "refapp/tests") for path in (ROOT / tests).rglob("test_*.py")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_exist(document):
    named = set(re.findall(r"\btest_\w+(?:\.py)?", document.read_text()))
    known = {path.name for path in FILES}
    for path in FILES:
        known.update(re.findall(r"^def (test_\w+)\(", path.read_text(), re.M))
    assert named - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^):]*)\)", document.read_text()):
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        titles = re.findall(r"^#+ (.+)$", path.read_text(), re.M) if path.suffix == ".md" else []
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_named_exist(document):
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) - targets == set()
    playbooks = set(re.findall(r"\bplaybooks/[\w/]+\.yml", text))
    assert {name for name in playbooks if not (ROOT / name).exists()} == set()
