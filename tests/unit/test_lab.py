"""What the lab does to files of the operator."""

import re

import pytest
import yaml

from lab import files
from lab.inventory import LabError

TEMPLATE = """---
# How to fill this in.

# Signs things.
secret_one: CHANGE_ME
# Another.
secret_two: CHANGE_ME

# Of the store.
secret_three: CHANGE_ME
"""


@pytest.fixture(autouse=True)
def target(tmp_path, monkeypatch):
    template = tmp_path / "template.yml"
    template.write_text(TEMPLATE)
    monkeypatch.setattr(files, "SECRETS_TEMPLATE", template)
    folder = tmp_path / "group_vars"
    folder.mkdir()
    return folder / "secrets.yml"


def test_a_new_file_is_the_template_with_values_of_its_own(target):
    assert files.fill_secrets(target)
    found = yaml.safe_load(target.read_text())
    assert list(found) == ["secret_one", "secret_two", "secret_three"]
    assert len(set(found.values())) == 3
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in found.values())
    assert target.stat().st_mode & 0o777 == 0o600
    assert "# Signs things.\n" in target.read_text()


def test_what_is_there_stays_and_only_placeholders_are_filled(target):
    text = (
        "# Mine.\nsecret_two: keep me # and this\nsecret_own: {a: [1, 2]}\n\n"
        "secret_three: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n"
        "secret_note: not CHANGE_ME\nsecret_one: 'CHANGE_ME' # later\nother: CHANGE_ME"
    )
    target.write_text(text)
    target.chmod(0o640)
    assert files.fill_secrets(target)
    assert re.sub('"[0-9a-f]{48}"', "'CHANGE_ME'", target.read_text()) == text
    assert '"' in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_second_time_changes_nothing(target):
    files.fill_secrets(target)
    before = target.read_text()
    assert not files.fill_secrets(target)
    assert target.read_text() == before


def test_secrets_that_the_template_gained_are_added_with_their_words(target):
    target.write_text('secret_one: "mine"')
    target.with_name("more.yml").write_text("secret_three: elsewhere\n")
    assert files.fill_secrets(target)
    text = target.read_text()
    assert text.startswith('secret_one: "mine"\n')
    assert "# Another.\nsecret_two: " in text
    assert set(yaml.safe_load(text)) == {"secret_one", "secret_two"}


def test_an_encrypted_file_is_left_alone_and_the_line_says_what_to_type(target):
    target.write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    with pytest.raises(LabError, match=r"type ansible-vault decrypt .*secrets\.yml, repeat"):
        files.fill_secrets(target)
    assert target.read_text() == "$ANSIBLE_VAULT;1.1;AES256\n6162\n"
