"""Streams through real proxies in front of the port: piece by piece as without one, and cut where they break off."""

import shutil
from pathlib import Path

import pytest

from tests.gateway.streaming.world import World, on_world
from tests.gateway.wire.test_behind_proxies import PROXIES, Proxy


@pytest.mark.parametrize("end", ["complete", "broken_off"])
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_stream_passes_through_a_proxy_piece_by_piece(name: str, end: str, tmp_path: Path) -> None:
    if shutil.which(PROXIES[name][0]) is None:
        pytest.skip(f"{PROXIES[name][0]} is not installed (.ci/run installs it)")

    async def check(world: World) -> None:
        async with Proxy(name, tmp_path, world.number) as proxy:
            call = await world.connect(proxy.number)
            call.ask()
            answering = await world.backends["1"].next()
            answering.begin()
            await call.head()
            await call.in_step(answering, 5)
            if end == "complete":
                answering.end()
                assert await call.piece() == b""
            else:
                answering.cut()
                assert await call.pieces_until_cut() == b""
            record = await world.record()
            assert (record.streamed, record.response.size) == (end, 45)

    on_world(tmp_path, check)
