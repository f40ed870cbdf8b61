"""What comes up in one turn of the event loop and is done together at its end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway.together import Together

Loop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_items_of_one_turn_are_done_in_their_order_before_the_next_turn(loop: Loop) -> None:
    async def work() -> None:
        done: list[list[int]] = []
        together: Together[int] = Together(done.append)
        for number in range(3):
            together.add(number)
        assert done == []
        await asyncio.sleep(0)
        assert done == [[0, 1, 2]]
        await asyncio.sleep(0)
        assert done == [[0, 1, 2]]

    loop(work())


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_what_comes_up_while_they_are_done_is_of_the_next_turn(loop: Loop) -> None:
    async def work() -> None:
        done: list[list[int]] = []

        def do(items: list[int]) -> None:
            done.append(items)
            if items[0] < 3:
                together.add(items[0] + 1)

        together = Together(do)
        together.add(1)
        for turns in range(1, 4):
            await asyncio.sleep(0)
            assert done == [[number] for number in range(1, turns + 1)]

    loop(work())
