"""A control plane on a bench, with real parts: the audit store and the archive in SQLite, the last good files, boards.

The parts are the bench's: several planes on one bench share them, as the look-ups of one control process do.
"""

import json
from collections.abc import Mapping
from typing import Any

from gateway.catalog import Manifest, Signature
from gateway.controlplane import ControlPlane, DocumentOutcome, Origin, Published, StoreWatch
from gateway.gauges import BoardFolder
from gateway.metrics import Board, board_path
from gateway.ports import RulesStore
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from tests.gateway.conftest import Bench

WHOLE, HALVES = {"1": 10_000}, {"1": 5000, "2": 5000}
NOBODY_WAITS_S = 0.02  # where no worker is alive, there is nothing to wait for
WORKERS_WAIT_S = 10.0  # where there are workers, a busy machine may take long


class Control:
    """One control process: its plane and its watch. `gateway` names it; its files lie in a folder of that name."""

    def __init__(
        self, bench: Bench, store: RulesStore | None = None, *, gateway: str = "gw", wait_s: float = NOBODY_WAITS_S
    ) -> None:
        self.bench = bench
        self.store = store or bench.store
        self.folder = bench.folder.parent / gateway
        self.rules_folder = bench.folder if gateway == "gw" else self.folder / "rules"
        self.run_folder = self.folder / "run"
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self.audit = SqliteAudit(self.folder / "audit")
        self.archive = SqliteRevisions(self.folder / "revisions.db")
        self.boards = BoardFolder(self.run_folder)
        for part in (self.audit, self.archive, self.boards):
            bench.opened.callback(part.close)
        self.watch = StoreWatch(self.store, self.rules_folder, self.boards)
        self.plane = ControlPlane(
            self.store,
            self.audit,
            self.archive,
            self._inspect,
            self.watch,
            self.boards,
            gateway=gateway,
            publish_wait_s=wait_s,
        )

    async def _inspect(self, manifest: Manifest) -> Signature | None:
        """Prepare the version for a moment, as the composition root does."""
        if manifest.backend.onnx is None:
            return None
        executor = self.bench.adding(manifest)
        try:
            await executor.prepare()
            return (await executor.ready()).signature
        finally:
            await executor.release()

    def board(self, index: int) -> Board:
        """Return the board of a worker of this gateway, whose process is this one."""
        board = Board(board_path(self.run_folder, index))
        self.bench.opened.callback(board.close)
        board.begin()
        return board


def plane_of(bench: Bench, store: RulesStore | None = None, wait_s: float = NOBODY_WAITS_S) -> ControlPlane:
    return Control(bench, store, wait_s=wait_s).plane


async def two_versions(bench: Bench, wait_s: float = NOBODY_WAITS_S) -> ControlPlane:
    await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"))
    return plane_of(bench, wait_s=wait_s)


def origin(operation_id: str, comment: str = "why", actor: str = "ann") -> Origin:
    return Origin(actor, comment, operation_id)


def route(split: Mapping[str, int], model: str = "fraud", **fields: Any) -> bytes:
    return json.dumps({"model": model, "split": split} | fields).encode()


def cohort(name: str = "beta", **fields: Any) -> bytes:
    return json.dumps({"name": name} | fields).encode()


def told(published: Published) -> tuple[int, bool, bool, tuple[str, ...], Mapping[str, str]]:
    """Return what a change came to, without its documents."""
    return (
        published.revision,
        published.changed,
        published.in_force,
        published.acknowledged,
        published.laggards,
    )


def outcomes(documents: tuple[DocumentOutcome, ...]) -> dict[str, str]:
    """Return what became of each document, by kind and name."""
    return {f"{one.kind} {one.name}": one.outcome for one in documents}
