"""The inventories that operators copy stay alike where they should."""

import re
from pathlib import Path

import pytest
import yaml

from lab import files

INVENTORIES = Path(__file__).resolve().parents[2] / "inventories"


def names(path):
    return sorted(re.findall(r"^(secret_\w+):", path.read_text(), re.M))


@pytest.mark.parametrize("inventory", ["prod", "single"])
def test_app_is_described_alike(inventory):
    lab, other = (
        (INVENTORIES / name / "group_vars/all/app.yml").read_text() for name in ("lab", inventory)
    )
    assert other == lab


def test_templates_name_the_same_secrets_and_hold_none():
    prod, single = (
        INVENTORIES / name / "group_vars/all/secrets.yml" for name in ("prod", "single")
    )
    assert names(prod) == names(single)
    for path in (prod, single):
        assert set(yaml.safe_load(path.read_text()).values()) == {"CHANGE_ME"}


def test_secrets_are_filled_once_and_none_is_dropped(tmp_path):
    target = tmp_path / "secrets.yml"
    target.write_text(
        'secret_jwt_key: "mine"\nsecret_db_password: CHANGE_ME\nsecret_jwt_key_2: new\n'
    )
    assert files.fill_secrets(target)
    filled = yaml.safe_load(target.read_text())
    assert (filled["secret_jwt_key"], filled["secret_jwt_key_2"]) == ("mine", "new")
    assert filled.keys() - {"secret_jwt_key_2"} == set(names(files.SECRETS_TEMPLATE))
    assert "CHANGE_ME" not in filled.values()
    assert not files.fill_secrets(target)


def test_every_secret_that_is_used_is_named():
    root = INVENTORIES.parent
    files = [*root.glob("playbooks/**/*.yml"), *root.glob("inventories/**/*.yml")]
    used = {name for file in files for name in re.findall(r"\bsecret_\w+", file.read_text())}
    assert sorted(used) == names(INVENTORIES / "prod/group_vars/all/secrets.yml")
