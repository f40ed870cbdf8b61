"""A whole data plane around fixed rules: real rules, executors, shadows and models; records are kept in a list.

open_face()     the face of a data plane that serves `digits` by the route of ROUTE, and the records it leaves
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.catalog import Manifest, encode_manifest, parse_manifest
from gateway.config import OnnxSettings, RulesSettings, ShadowSettings
from gateway.dataplane import DataPlane
from gateway.errors import RulesUnavailable
from gateway.examples import digits_folder
from gateway.executors.onnx import OnnxExecutor
from gateway.flight import Origin
from gateway.inquiries import Inquiries
from gateway.metrics import Board
from gateway.ports import Acknowledgement, Head, Kind, Revision, RulesState, StoredDocument
from gateway.protocols.oip_v2 import OipV2Face
from gateway.record import Record
from gateway.request_lines import RequestLines
from gateway.shadow import Shadows
from gateway.snapshot import Rules
from routing import encode_document, parse_cohort, parse_route

COHORT: dict[str, Any] = {"name": "beta", "keys": ["u-17"]}
ROUTE: dict[str, Any] = {
    "model": "digits",
    "split": {"1": 0, "2": 10_000},
    "pins": [{"cohort": "beta", "version": "1"}],
    "shadows": [{"version": "1", "sample": 10_000}],
}


class FixedRules:
    """A rules store that never changes; with no documents it never answers."""

    def __init__(self, documents: dict[tuple[Kind, str], StoredDocument]) -> None:
        self._state = RulesState(Head("e", 4), documents)

    async def head(self) -> Head:
        if not self._state.documents:
            raise RulesUnavailable("there are no rules")
        return self._state.head

    async def load(self) -> RulesState:
        await self.head()
        return self._state

    async def revisions(self, after: int, upto: int) -> Sequence[Revision] | None:  # noqa: ARG002
        return None

    async def acknowledge(self, acknowledgement: Acknowledgement) -> None:  # noqa: ARG002
        return None

    async def follows(self) -> Mapping[str, int]:
        return {}

    async def notices(self) -> AsyncIterator[None]:
        yield None

    async def withdraw(self, worker: str) -> None:  # noqa: ARG002
        return None

    async def close(self) -> None:
        return None


class KeptRecords:
    """Keeps records in memory; a real `ports.RecordSink`."""

    failed = False

    def __init__(self) -> None:
        self.records: list[Record] = []

    def check(self) -> None:
        pass

    def append(self, record: Record, request: bytes, response: bytes) -> None:  # noqa: ARG002 - the shape of the port
        self.records.append(record)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def _digits(version: str, spoiled: str) -> Manifest:
    folder = digits_folder() / version
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    assert manifest.backend.onnx is not None
    placed = msgspec.structs.replace(manifest.backend.onnx, path=str(folder / "model.onnx"))
    if version == spoiled:
        placed = msgspec.structs.replace(placed, sha256="0" * 64)
    return msgspec.structs.replace(manifest, backend=msgspec.structs.replace(manifest.backend, onnx=placed))


def _documents(spoiled: str) -> dict[tuple[Kind, str], StoredDocument]:
    return {
        ("cohort", "beta"): StoredDocument(1, encode_document(parse_cohort(COHORT))),
        ("version", "digits/1"): StoredDocument(2, encode_manifest(_digits("1", spoiled))),
        ("version", "digits/2"): StoredDocument(3, encode_manifest(_digits("2", spoiled))),
        ("route", "digits"): StoredDocument(4, encode_document(parse_route(ROUTE))),
    }


OpenFace = Callable[..., AbstractAsyncContextManager[tuple[OipV2Face, KeptRecords]]]


@pytest.fixture
def open_face(tmp_path: Path) -> OpenFace:
    """Open a face and give it with the records it leaves.

    `rules=False` leaves it without any rules; `spoiled` names a version whose artifact is not the registered one.
    """

    @asynccontextmanager
    async def opened(rules: bool = True, spoiled: str = "") -> AsyncIterator[tuple[OipV2Face, KeptRecords]]:
        pools = {lane: ThreadPoolExecutor(1) for lane in ("primary", "shadow")}
        board, records = Board(tmp_path / "board"), KeptRecords()
        source = FixedRules(_documents(spoiled) if rules else {})
        in_force = Rules(
            source,
            lambda manifest: OnnxExecutor(manifest, OnnxSettings(), pools),
            tmp_path,
            board,
            RulesSettings(),
            "w-0",
        )
        await in_force.start()
        shadows = Shadows(ShadowSettings(), records, board)
        plane = DataPlane(in_force, records, shadows, board, Origin("g", "w-0"), RequestLines("info"))
        try:
            yield OipV2Face(plane, Inquiries(in_force, records)), records
        finally:
            await shadows.drain(5.0)
            await in_force.close()
            for pool in pools.values():
                pool.shutdown()
            board.close()

    return opened
