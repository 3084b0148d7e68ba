"""What Swift is restarted for."""

import pytest

from tests.unit.test_templates import ROOT, Renderer, trust_as_template

TEMPLATES = ROOT / "roles/swift/templates"
TAKEN_ELSEWHERE = {"front.conf"}  # by nginx


@pytest.mark.parametrize("inventory", ["lab", "single"])
def test_the_age_of_every_file_is_looked_at(inventory):
    renderer = Renderer(inventory, "swift")
    settings = renderer._with({}).template(trust_as_template("{{ __swift_settings }}"))
    looked_at = {path.rpartition("/")[2] for paths in settings.values() for path in paths}
    written = {
        path.relative_to(TEMPLATES).parts[0].removesuffix(".j2") for path in TEMPLATES.rglob("*.j2")
    }
    assert written - TAKEN_ELSEWHERE == looked_at
