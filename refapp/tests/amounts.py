"""How much the tests do: a short form of each proof, or with REFAPP_TEST_FULL=1 all of it."""

import os

FULL = os.environ.get("REFAPP_TEST_FULL") == "1"


def amount(short, full):
    """Return how much of something this run does."""
    return full if FULL else short
