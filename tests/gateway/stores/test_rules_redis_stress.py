"""Many editors of one document through a network that loses replies: nothing is lost and nothing is made twice.

`STRESS_INCREMENTS` (default 20) is how often each of the editors adds 1; load runs set it to 200.
"""

import asyncio
import os
import random

from gateway.errors import RevisionConflict, RulesUnavailable
from gateway.ports import ChangeSet, Write
from gateway.stores.rules_redis import RedisRules
from tests.conftest import RunningValkey
from tests.gateway.stores.relay import Relay

EDITORS = 50
LOSING = 0.2


async def add_one(store: RedisRules, operation_id: str, rng: random.Random) -> int:
    """Read, write what follows, and send it again until it is known to be made: what a careful client does."""
    while True:
        try:
            present = await store.read("route", "counter")
            value, revision = (int(present.json), present.revision) if present else (0, 0)
            change = ChangeSet(operation_id, "ann", "", 1, (Write("route", "counter", b"%d" % (value + 1), revision),))
            return await until_answered(store, change)
        except RevisionConflict:
            await asyncio.sleep(rng.random() * 0.3)  # let others go first
        except RulesUnavailable:
            continue  # reading had no answer


async def until_answered(store: RedisRules, change: ChangeSet) -> int:
    while True:
        try:
            return await store.apply(change)
        except RulesUnavailable:
            continue


def test_every_increment_is_made_exactly_once_when_replies_are_lost(valkey: RunningValkey) -> None:
    increments = int(os.environ.get("STRESS_INCREMENTS", "20"))
    total = EDITORS * increments

    async def edit(store: RedisRules, editor: int) -> list[int]:
        rng = random.Random(editor)
        return [await add_one(store, f"{editor}-{number}", rng) for number in range(increments)]

    async def scenario() -> None:
        direct = RedisRules(valkey.url)
        await direct.initialise()
        async with Relay(valkey.socket, losing=LOSING).running() as relay:
            stores = [RedisRules(f"redis://127.0.0.1:{relay.port}/0") for _ in range(5)]  # as many gateways
            made = await asyncio.gather(*(edit(stores[editor % 5], editor) for editor in range(EDITORS)))
            for store in stores:
                await store.close()
            assert relay.lost > total / 10  # else nothing has been tested
        present = await direct.read("route", "counter")
        assert present is not None
        assert present.json == b"%d" % total
        assert sorted(revision for one in made for revision in one) == list(range(1, total + 1))
        history = await direct.revisions(0, total)
        assert history is not None
        assert [one.changes[0].after for one in history] == [b"%d" % number for number in range(1, total + 1)]
        assert len({one.operation_id for one in history}) == total
        await direct.close()

    asyncio.run(scenario())
