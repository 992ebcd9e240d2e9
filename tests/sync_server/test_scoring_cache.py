"""Loaded models: bounded, loaded once, and a broken one is not tried again at every request."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from simulators.bundles import SmallBundle

from edge_runtime.errors import ScoringError, StorageError
from sync_server.errors import RequestError
from sync_server.scoring import cache as cache_module
from sync_server.scoring.cache import RETRY_SECONDS, ModelCache
from sync_server.scoring.listing import Choice

CUSTOM = SmallBundle().build().custom


def choice(name: str) -> Choice:
    return Choice("stable", f"pumps/{name}/default.bundle", name * 64, CUSTOM)


class Loader:
    """Loads models of a size that tests choose, and counts."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.loaded: list[str] = []
        self.error: Exception | None = None
        self.gate: threading.Event | None = None

    def __call__(self, wanted: Choice) -> Any:
        self.loaded.append(wanted.digest[0])
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(digest=wanted.digest, size=self.size)


def names(cache: ModelCache) -> str:
    return "".join(digest[0] for digest in cache.loaded())


def test_the_least_recently_used_goes_first() -> None:
    load = Loader()
    cache = ModelCache(load, most_models=3)
    for name in "abcabd":
        assert cache.get(choice(name)).digest == name * 64
    assert names(cache) == "abd"
    cache.get(choice("a"))
    cache.get(choice("e"))
    assert names(cache) == "dae"
    assert load.loaded == list("abcde")


def test_bytes_are_bounded_and_the_one_in_hand_stays() -> None:
    cache = ModelCache(Loader(40), most_models=10, most_bytes=100)
    for name in "abc":
        cache.get(choice(name))
    assert names(cache) == "bc"
    huge = ModelCache(Loader(1_000), most_models=10, most_bytes=100)
    assert huge.get(choice("a")).size == 1_000
    huge.get(choice("b"))
    assert names(huge) == "b"


@pytest.mark.parametrize("error", [StorageError("gone"), ScoringError("no", reason="golden_failed")])
def test_a_broken_bundle_is_tried_again_after_a_while(error: Exception) -> None:
    now = [0.0]
    load = Loader()
    load.error = error
    cache = ModelCache(load, most_models=3, clock=lambda: now[0])
    for moment in (0.0, 1.0, RETRY_SECONDS - 0.1):
        now[0] = moment
        with pytest.raises(RequestError) as caught:
            cache.get(choice("a"))
        assert (caught.value.status, caught.value.code) == (503, "model_unavailable")
    assert load.loaded == ["a"]
    now[0], load.error = RETRY_SECONDS, None
    assert cache.get(choice("a")).digest == "a" * 64


def test_whoever_comes_while_it_loads_waits_for_the_one_load() -> None:
    load = Loader()
    load.gate = threading.Event()
    cache = ModelCache(load, most_models=3)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.get, choice("a")) for _ in range(8)]
        load.gate.set()
        assert len({id(future.result(30)) for future in futures}) == 1
    assert load.loaded == ["a"]


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WAIT_SECONDS", 0.05)
    load = Loader()
    load.gate = threading.Event()
    cache = ModelCache(load, most_models=3)
    owner = threading.Thread(target=cache.get, args=(choice("a"),))
    owner.start()
    while not load.loaded:
        pass
    with pytest.raises(RequestError, match="still being loaded"):
        cache.get(choice("a"))
    assert cache.loaded() == ()
    load.gate.set()
    owner.join()
    assert names(cache) == "a"


def test_a_bug_while_loading_leaves_nobody_waiting() -> None:
    load = Loader()
    load.error = KeyError("a bug")
    cache = ModelCache(load, most_models=3)
    with pytest.raises(KeyError):
        cache.get(choice("a"))
    load.error = None
    assert cache.get(choice("a")).digest == "a" * 64
