"""Whether changes are possible: a new store is begun, a lost one is told about and left alone."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.controlplane import StoreWatch
from gateway.stores.rules_redis import RedisRules
from tests.conftest import RunningValkey


async def _watched(url: str, folder: Path, until: Callable[[list[str]], bool]) -> list[str]:
    store = RedisRules(url)
    watch = StoreWatch(store, folder)
    running = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(15):
            while not until(watch.troubles()):  # noqa: ASYNC110 - the watch has no event to wait for
                await asyncio.sleep(0.01)
        return watch.troubles()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


def _looked(troubles: list[str]) -> bool:
    return troubles != ["the rules store has not answered yet"]


def test_a_new_store_is_begun(valkey: RunningValkey, tmp_path: Path) -> None:
    assert asyncio.run(_watched(valkey.url, tmp_path, _looked)) == []
    assert b"epoch" in valkey.command("HKEYS", "{pm}:head")


def test_a_store_that_lost_rules_which_were_in_force_here_is_left_as_it_is(
    valkey: RunningValkey, tmp_path: Path
) -> None:
    (tmp_path / "lkg-000000000007.json").write_text("{}")
    (trouble,) = asyncio.run(_watched(valkey.url, tmp_path, _looked))
    assert "rules were in force here before" in trouble
    assert b"epoch" not in valkey.command("HKEYS", "{pm}:head")


def test_a_store_that_does_not_answer_is_told_about(start_valkey: Callable[[], RunningValkey], tmp_path: Path) -> None:
    private = start_valkey()
    private.kill()
    (trouble,) = asyncio.run(_watched(private.url, tmp_path, _looked))
    assert "rules store" in trouble
