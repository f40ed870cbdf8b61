"""A thousand callers that are slow on purpose: their deadlines close them, and honest callers notice nothing."""

import asyncio
from collections import Counter
from typing import Any

from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Opened, ask, on_port, post, replies_in

COUNT = 1_000
CLOSE = "Connection: close"
BEGINNINGS = {
    "says nothing": b"",
    "never ends its head": f"POST {INFER} HTTP/1.1\r\nHost: test\r\nA: b\r\n".encode(),
    "never ends a field": f"POST {INFER} HTTP/1.1\r\nHost: test\r\nA: ".encode(),
    "never ends its body": post(INFER, b"a" * 60_000)[:-59_000],
    "never ends a chunk": f"POST {INFER} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nff\r\na".encode(),
}
DRIPS = {"never ends its head": b"A: b\r\n", "never ends a field": b"c", "never ends its body": b"d"}


async def _be_slow(number: int, kind: str, statuses: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    writer.write(BEGINNINGS[kind])
    answer = asyncio.create_task(reader.read())
    while not (await asyncio.wait({answer}, timeout=0.25))[0]:
        writer.write(DRIPS.get(kind, b""))
    try:
        replies = replies_in(answer.result())
        statuses[f"{kind}: {[reply.status for reply in replies]}"] += 1
    except ConnectionResetError:
        statuses[f"{kind}: reset"] += 1
    writer.close()


def test_a_thousand_slow_callers_are_closed_by_their_deadlines_while_honest_ones_are_served() -> None:
    async def check(opened: Opened) -> None:
        statuses: Counter[str] = Counter()
        kinds = list(BEGINNINGS)
        slow = [asyncio.create_task(_be_slow(opened.number, kinds[n % len(kinds)], statuses)) for n in range(COUNT)]
        await until(lambda: len(opened.port.connections) >= COUNT)
        served = 0
        while not all(task.done() for task in slow):
            (reply,) = await ask(opened, post(INFER, b"%d" % served, CLOSE))
            assert reply.echoed["body"] == str(served)
            served += 1
        assert served >= 10
        await asyncio.gather(*slow)
        silent = "says nothing: []"
        assert statuses[silent] == COUNT / len(kinds)
        assert sum(statuses.values()) == COUNT
        assert all(key == silent or key.endswith((": [408]", ": reset")) for key in statuses), statuses
        await until(lambda: not opened.port.connections)

    limits: dict[str, Any] = {"head_seconds": 2.0, "body_seconds": 2.0, "idle_seconds": 2.0, "send_seconds": 2.0}
    on_port(check, seconds=120.0, **limits)
