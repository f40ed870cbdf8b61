"""Fast runs: those of one turn of the event loop one after the other at its end, each with an outcome of its own."""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic_ns
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from gateway.arrival import Arrival, Run
from gateway.errors import DeadlineExceeded, InvalidInput
from gateway.executors.onnx_inline import InlineRuns, Timed

SIDE = 64
SECOND = 1_000_000_000
LoopModel = Callable[[int], onnx.ModelProto]


class Counted:
    """A session of ONNX Runtime that counts its runs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.runs = 0

    def run(self, *asked: Any) -> Any:
        self.runs += 1
        return self._session.run(*asked)


@pytest.fixture
def session(loop_model: LoopModel) -> Counted:
    """A model that takes as many rounds as it is told."""
    return Counted(loop_model(SIDE))


def feed(rounds: int, side: int = SIDE) -> dict[str, Any]:
    return {"x": np.full((side, side), 0.01, dtype=np.float32), "n": np.array(rounds, dtype=np.int64)}


async def all_of(outcomes: list[Arrival[Timed]]) -> None:
    for outcome in outcomes:
        outcome.then(lambda _: None)
    await asyncio.sleep(0)
    assert all(outcome.come for outcome in outcomes)


def in_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_nobody_goes_on_before_all_runs_of_the_turn_have_ended(session: Counted) -> None:
    async def work() -> None:
        runs = InlineRuns()
        outcomes = [runs.submit(session, ("y",), feed(rounds), monotonic_ns() + SECOND) for rounds in (1, 2, 3)]
        told: list[tuple[Arrival[Timed], int]] = []
        for outcome in outcomes:
            outcome.then(lambda outcome: told.append((outcome, monotonic_ns())))
        assert session.runs == 0
        await asyncio.sleep(0)
        assert [outcome for outcome, _ in told] == outcomes
        ends = [outcome.result()[0][2] for outcome in outcomes]
        assert ends == sorted(ends)
        assert told[0][1] >= ends[-1]
        first, second, _ = [outcome.result()[0][0][0] for outcome in outcomes]
        assert not np.array_equal(first, second)  # each got what it had asked for

    in_loop(work)


def test_one_that_the_model_refuses_fails_alone(session: Counted) -> None:
    async def work() -> None:
        runs = InlineRuns()
        sides = (SIDE, SIDE + 1, SIDE)
        outcomes = [runs.submit(session, ("y",), feed(1, side), monotonic_ns() + SECOND) for side in sides]
        await all_of(outcomes)
        for outcome in (outcomes[0], outcomes[2]):
            (_, started, ended), taken_ns = outcome.result()
            assert 0 < taken_ns <= ended - started
        with pytest.raises(InvalidInput):
            outcomes[1].result()

    in_loop(work)


def test_one_whose_time_is_over_when_its_turn_comes_does_not_run(session: Counted) -> None:
    async def work() -> None:
        runs = InlineRuns()
        first = runs.submit(session, ("y",), feed(20_000), monotonic_ns() + 60 * SECOND)
        late = runs.submit(session, ("y",), feed(1), monotonic_ns() + 1)
        await all_of([first, late])
        first.result()
        with pytest.raises(DeadlineExceeded):
            late.result()
        assert session.runs == 1

    in_loop(work)


def test_one_that_nobody_waits_for_any_more_does_not_run(session: Counted) -> None:
    async def work() -> None:
        runs = InlineRuns()
        outcomes = [runs.submit(session, ("y",), feed(1), monotonic_ns() + SECOND) for _ in range(2)]
        hung_up, patient = [Run(_result(outcome)) for outcome in outcomes]
        hung_up.go()
        patient.go()
        hung_up.cancel()
        await asyncio.sleep(0)
        assert session.runs == 1
        assert [outcome.come for outcome in outcomes] == [False, True]

    in_loop(work)


async def _result(outcome: Arrival[Timed]) -> Timed:
    return await outcome
