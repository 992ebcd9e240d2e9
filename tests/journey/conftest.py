"""Fixtures of the journey: one server for the session, one model trained for it, and seeded randomness."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator

import pytest
from journey.phones import Trained, train_phones
from journey.stack import Stack

PUMPS = (1, 2, 3)
PADDING = 1_500_000


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running server with releases 1 to 3 of the model ``pumps``, the first rolled out on ``stable`` and ``kills``."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.open_workshop()
        stack.start()
        stack.make_tokens()
        for release in PUMPS:
            stack.publish(stack.small_bundle(release, padding=PADDING), channels=("stable", "kills"))
        for channel in ("stable", "kills"):
            stack.roll_out(channel, "pumps", 1)
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def trained(stack: Stack) -> Trained:
    """A forest that was trained on a simulated fleet, published and rolled out on the channel ``phones``."""
    return train_phones(stack)


@pytest.fixture
def dice() -> random.Random:
    """Random moments; the seed is printed, and ``STELLA_KILL_SEED`` repeats a run."""
    seed = int(os.environ.get("STELLA_KILL_SEED") or secrets.randbits(32))
    print(f"STELLA_KILL_SEED={seed}")
    return random.Random(seed)
