"""The brake of one worker by itself: which failures count, what is told, and when it is forgotten."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from gateway.attempt import Tried
from gateway.brake import Brakes
from gateway.catalog import parse_manifest
from gateway.errors import ArtifactInvalid, ModelFailed
from gateway.metrics import Board, Slot
from gateway.ports import Head
from gateway.record import Attempt
from gateway.snapshot import PreparedVersion, RouteEntry, Snapshot
from gateway.snapshot.frozen_map import FrozenMap
from gateway.trips import Trip
from routing import parse_route
from tests.conftest import AddingVersions

SPLIT = {"1": 5_000, "2": 3_000, "3": 2_000, "4": 0}
FAILED = ModelFailed("it failed", "onnx")


class Bench:
    """Brakes, the rules that they are of, and what they told."""

    def __init__(self, board: Board, adding: AddingVersions) -> None:
        self.board = board
        self._adding = adding
        self.told: list[Collection[Trip]] = []
        self.brakes = Brakes(board, lambda trips: self.told.append(tuple(trips)))
        self.put(1)

    def put(self, revision: int, broken: str = "", failures: int = 3, of: int = 5) -> None:
        """Put a route in force, with a version that could not be prepared."""
        route = parse_route({"model": "fraud", "split": SPLIT, "brake": {"failures": failures, "of": of}})
        self.entry = RouteEntry(route, revision)
        versions: FrozenMap[tuple[str, str], PreparedVersion] = FrozenMap()
        for version in SPLIT:
            manifest = parse_manifest(self._adding.manifest("fraud", version))
            problem = ArtifactInvalid("no number") if version == broken else None
            put = {("fraud", version): PreparedVersion(manifest, self._adding(manifest), problem)}
            versions = versions.changed(put, ())
        routes: FrozenMap[str, RouteEntry] = FrozenMap()
        routes = routes.changed({"fraud": self.entry}, ())
        self.snapshot = Snapshot(Head("e", revision), routes, {}, {}, versions, versions.keys())

    def note(self, version: str, outcomes: str, entry: RouteEntry | None = None) -> None:
        """Note what came of requests, one a letter: `f` failed, `s` was served, `o` was refused as overloaded."""
        for outcome in outcomes:
            code = {"f": "model_failed", "o": "overloaded", "s": None}[outcome]
            attempt = Attempt(version, "onnx", 5, None if code else 200, code)
            error = FAILED if code else None
            tried = Tried(attempt, "failed" if code else "served", None, error, code, 0)
            self.brakes.note(entry or self.entry, self.snapshot, tried)

    def braked(self) -> tuple[str, ...]:
        return self.brakes.braked(self.entry)


@pytest.fixture
def bench(tmp_path: Path, adding: AddingVersions) -> Iterator[Bench]:
    board = Board(tmp_path / "board")
    board.begin()
    yield Bench(board, adding)
    board.close()


@pytest.mark.parametrize(
    ("outcomes", "braked"),
    [
        ("fff", True),
        ("ff", False),
        ("fsfsf", True),
        ("fsssff", False),  # the first is the sixth but last
        ("ffsssfsf", False),
        ("ffof", True),  # who is refused for too much is not asked at all
        ("foooo" * 2 + "s", False),
        ("sssssssfff", True),
    ],
)
def test_a_version_is_braked_when_k_of_its_last_n_requests_failed(bench: Bench, outcomes: str, braked: bool) -> None:
    bench.note("2", outcomes)
    assert bench.braked() == (("2",) if braked else ())


def test_a_trip_is_told_with_its_figures(bench: Bench) -> None:
    bench.note("2", "sfff")
    ((trip,),) = bench.told
    assert (trip.model, trip.version, trip.revision, trip.failures, trip.of) == ("fraud", "2", 1, 3, 4)
    bench.note("2", "ffff")
    assert len(bench.told) == 1
    bench.note("3", "fff")
    assert [one.version for one in bench.told[1]] == ["2", "3"]
    assert bench.board[Slot.VERSIONS_BRAKED] == 2


def test_a_version_without_a_share_is_not_braked(bench: Bench) -> None:
    bench.note("4", "ffffff")
    assert bench.braked() == ()


def test_the_last_version_that_can_serve_is_not_braked(bench: Bench) -> None:
    for version in ("1", "2", "3"):
        bench.note(version, "fff")
    assert bench.braked() == ("1", "2")


def test_a_version_that_could_not_be_prepared_is_none_that_can_serve(bench: Bench) -> None:
    bench.put(1, broken="3")
    bench.note("1", "fff")
    bench.note("2", "fff")
    assert bench.braked() == ("1",)


def test_a_new_revision_releases_the_brake_and_begins_anew(bench: Bench) -> None:
    before = bench.entry
    bench.note("2", "fff")
    bench.brakes.look(bench.snapshot)
    assert bench.braked() == ("2",)
    bench.put(2)
    assert bench.braked() == ()
    bench.brakes.look(bench.snapshot)
    assert bench.told[-1] == ()
    assert bench.board[Slot.VERSIONS_BRAKED] == 0
    bench.note("2", "ff")
    bench.note("2", "fff", entry=before)  # of requests that began by the older route
    assert bench.braked() == ()
    bench.note("2", "f")
    assert bench.braked() == ("2",)


def test_failures_under_a_route_that_replaced_a_braked_one_wait_for_its_release(bench: Bench) -> None:
    bench.note("2", "fff")
    bench.put(2)
    bench.note("2", "fff")
    assert bench.braked() == ()
    bench.brakes.look(bench.snapshot)
    bench.note("2", "fff")
    assert bench.braked() == ("2",)


def test_a_model_that_is_gone_is_forgotten(bench: Bench) -> None:
    bench.note("2", "fff")
    none: FrozenMap[str, RouteEntry] = FrozenMap()
    bench.brakes.look(Snapshot(Head("e", 2), none, {}, {}, FrozenMap(), frozenset()))
    assert bench.told[-1] == ()
