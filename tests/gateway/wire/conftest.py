"""What tests of the wire share: each runs on both event loops, asyncio's own and the one of production."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine to its end, within a bound; whatever the loop had to complain of fails the test."""

    def run_to_its_end(work: Coroutine[Any, Any, None]) -> None:
        complaints: list[dict[str, Any]] = []

        async def bounded() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(60):
                await work

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())
        assert not complaints

    return run_to_its_end
