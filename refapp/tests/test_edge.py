"""Caches of the edge are told of a write within a second, also when they fail for a moment."""

import time

import pytest
import services
from conftest import build
from refapp.extensions import edge
from selling import eventually

PURGE = ("PURGE", "/page")


@pytest.fixture
def two_caches(monkeypatch, environ, cache):
    frozen = services.Cache()
    frozen.delay = 5
    build(monkeypatch, environ | {"REFAPP_PURGE_URLS": f"{frozen.url},{cache.url}"})
    yield
    frozen.close()


def test_a_cache_that_fails_for_a_moment_is_told_within_a_second(app, cache):
    cache.status = 500
    edge.purge("/page")
    time.sleep(0.4)
    assert cache.purged == []
    cache.status = 204
    time.sleep(0.4)
    assert PURGE in cache.purged


def test_a_purge_that_came_late_is_repeated_too(app, cache):
    """What left the app before the write may arrive after any purge that was early enough."""
    cache.status = 500
    edge.purge("/page")
    cache.status = 204
    eventually(lambda: cache.purged == [PURGE] * 2, 1.5)
    time.sleep(0.5)
    assert cache.purged == [PURGE] * 2


def test_a_frozen_cache_delays_no_purge_of_another(two_caches, cache):
    for n in range(5):
        edge.purge(f"/{n}")
    began = time.monotonic()
    edge.purge("/page")
    eventually(lambda: cache.purged.count(PURGE) == 2, 2)
    assert time.monotonic() - began < 1
