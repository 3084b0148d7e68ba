"""The drills' catalogue, and a load as drills measure it."""

import yaml

from plugins.drill.measure import Sample
from plugins.load import ROOT

CATALOGUE = yaml.safe_load((ROOT / "playbooks/vars/drills.yml").read_text())
DRILLS = CATALOGUE["drills"]
FAULT_AT = 10.0


def load(seconds=60, failing=lambda second, kind: None, rate=50):
    """Samples at an even rate; `failing` gives how long one took, negative when it failed."""
    kinds = ["app", "write", "total", "write", "sales", "write"]
    samples = []
    for number in range(seconds * rate):
        second, kind = number / rate, kinds[number % len(kinds)]
        took = failing(second, kind)
        samples.append(Sample(second, abs(took or 0.05), kind, took is None or took > 0))
    return samples
