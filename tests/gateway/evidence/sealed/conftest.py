"""A house that is closed when the test ends."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.evidence.sealed.world import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A gateway's data folder at work, empty."""
    made = House(tmp_path / "house")
    yield made
    made.close()


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)
