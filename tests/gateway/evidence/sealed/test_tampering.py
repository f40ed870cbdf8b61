"""Whatever somebody with write access changes in records that a checkpoint covers is found, and named; nothing else is.

`FULL_COUNT=1` tries 1 000 mutations and 200 clean logs; without it, a few of each kind.
"""

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.evidence.findings import Verdict
from gateway.evidence.keys import open_key
from gateway.evidence.verification import Against, verify
from gateway.evidence.witness import FILE
from gateway.stores.audit_sqlite import SqliteAudit
from tests.gateway.evidence.sealed.tampering.gone import change_a_stub
from tests.gateway.evidence.sealed.tampering.mutations import MUTATIONS, tamper
from tests.gateway.evidence.sealed.tampering.raw import Mutation
from tests.gateway.evidence.sealed.tampering.signed import rewrite_what_follows
from tests.gateway.evidence.sealed.world import GATEWAY, House, live

FULL = os.environ.get("FULL_COUNT") == "1"
SEED = 20_261_125
EACH = 25 if FULL else 3
CLEAN = 200 if FULL else 10
HOUSES = 24 if FULL else 6


def verdict_on(house: Path, **fields: object) -> Verdict:
    """What verification says of a closed house, as a process that only reads would."""
    store = SqliteAudit(house / "audit", read_only=True)
    given: dict[str, object] = {
        "gateway": GATEWAY,
        "own": open_key(house / "keys").public,
        "witness": house / "keys" / FILE,
        "journals": house / "journal",
        "patience_seconds": 0.0,
    }
    try:
        return verify(store, Against(**(given | fields)))  # type: ignore[arg-type]
    finally:
        store.close()


def build(folder: Path, count: int) -> Sequence[Path]:
    """Build closed houses that have lived through different things."""
    for number in range(count):
        house = House(folder / str(number))
        live(house, random.Random(SEED + number))
        house.close()
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return build(tmp_path_factory.mktemp("houses"), HOUSES)


@pytest.fixture(scope="module")
def houses_without_marks(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Houses whose checkpoints are those of a gateway of before there were marks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.evidence.checkpointing.marks_of", lambda _: "")
        return build(tmp_path_factory.mktemp("houses"), HOUSES // 2)


@pytest.mark.parametrize("number", range(CLEAN))
def test_nothing_is_found_in_a_clean_log(tmp_path: Path, number: int) -> None:
    house = House(tmp_path / "house")
    live(house, random.Random(SEED + 1_000 + number))
    house.close()

    verdict = verdict_on(tmp_path / "house", exported=tmp_path / "house" / "exported.jsonl")

    assert verdict.findings == (), f"seed {SEED + 1_000 + number}"
    assert verdict.records > 0 < verdict.checkpoints


def changed_copy(houses: Sequence[Path], copy: Path, kind: int, chance: random.Random) -> Mutation:
    for house in chance.sample(houses, len(houses)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(house, copy)
        mutation = tamper(copy, kind, chance)
        if mutation is not None:
            return mutation
    raise AssertionError("no house has what this mutation changes")


@pytest.mark.parametrize("kind", range(len(MUTATIONS)), ids=[one.__name__ for one in MUTATIONS])
def test_every_mutation_is_found_and_the_first_bad_record_named(
    houses: Sequence[Path], tmp_path: Path, kind: int
) -> None:
    for again in range(EACH):
        seed = f"{SEED} {MUTATIONS[kind].__name__} {again}"
        mutation = changed_copy(houses, tmp_path / "copy", kind, random.Random(seed))

        verdict = verdict_on(tmp_path / "copy")

        assert not verdict.holds, f"not found: {mutation.what} (seed {seed!r})"
        assert mutation.named(verdict), f"not named: {mutation.what} (seed {seed!r}): {verdict.findings[:3]}"


@pytest.mark.parametrize("kind", range(len(MUTATIONS)), ids=[one.__name__ for one in MUTATIONS])
def test_without_marks_every_mutation_is_found_and_all_but_consistent_ones_are_named(
    houses_without_marks: Sequence[Path], tmp_path: Path, kind: int
) -> None:
    seed = f"{SEED} {MUTATIONS[kind].__name__} without marks"
    mutation = changed_copy(houses_without_marks, tmp_path / "copy", kind, random.Random(seed))

    verdict = verdict_on(tmp_path / "copy")

    assert not verdict.holds, f"not found: {mutation.what} (seed {seed!r})"
    consistent = MUTATIONS[kind] in {rewrite_what_follows, change_a_stub}
    assert consistent or mutation.named(verdict), f"not named: {mutation.what} (seed {seed!r}): {verdict.findings[:3]}"
