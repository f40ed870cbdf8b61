"""What comes up in one turn of the event loop and is done together at its end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway.together import Row, Together

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


class Leaver:
    """Notes when it leaves."""

    def __init__(self, left: list[object]) -> None:
        self._left = left

    def leave(self) -> None:
        self._left.append(self)


def test_what_comes_to_leave_while_a_row_is_entered_leaves_in_its_order_when_that_is_left() -> None:
    left: list[object] = []
    row, one, two, three = Row(), Leaver(left), Leaver(left), Leaver(left)
    assert not row.put_off(one)
    with row:
        assert row.put_off(two)
        assert row.put_off(three)
        assert left == []
    assert left == [two, three]
    with row:
        pass
    assert left == [two, three]
    assert not row.put_off(one)


def test_a_row_is_left_also_by_an_error() -> None:
    left: list[object] = []
    row, one = Row(), Leaver(left)
    try:
        with row:
            row.put_off(one)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert left == [one]
    assert not row.put_off(one)
