"""What the suites of the rules store's contract share. Each test runs over every implementation of `open_store`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway.ports import ChangeSet, Resettlement, RulesStore, Write

AT_NS = 1_700_000_000_000_000_123


class OpenStore(Protocol):
    def __call__(self, history_kept: int = 1000) -> RulesStore: ...


def run(store: RulesStore, scenario: Callable[[RulesStore], Awaitable[None]], *, initialise: bool = True) -> None:
    async def whole() -> None:
        try:
            if initialise:
                await store.initialise()
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(whole())


def change(operation_id: str, *writes: Write, **more: Any) -> ChangeSet:
    """A change of these writes; `more` are further fields of `ChangeSet`."""
    return ChangeSet(operation_id, "ann", "a comment", AT_NS, writes, **more)


def resettlement(operation_id: str, epoch: str, *writes: Write, **more: Any) -> Resettlement:
    """A resettlement of these writes; `more` are further fields of `Resettlement`."""
    fields: dict[str, Any] = {"seen": None, "beyond": 0, "follows": {}} | more
    return Resettlement(operation_id, "ann", "a comment", AT_NS, epoch=epoch, writes=writes, **fields)


def route(json: bytes | None, expect: int, name: str = "fraud") -> Write:
    return Write("route", name, json, expect)
