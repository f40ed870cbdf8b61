"""A stretch of recorded traffic through a candidate: which requests, how often the two agree, and what flips."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import CannotReplay
from gateway.evidence.trial import MOST_LISTED
from routing import Capture
from tests.gateway.evidence.conftest import changed, digit, outputs_of
from tests.records import NOON_NS, shadow_of

WithBench = Callable[..., None]


async def label(at: Any, version: str, sample: int) -> Any:
    return outputs_of((await at.answer(version, digit(sample)))[1])["label"]


def test_agreement_flips_and_identical_bytes_are_counted_and_flips_listed(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        records = [await at.serve(sample, "1") for sample in range(30)]
        differing = [
            record.record_id
            for sample, record in enumerate(records)
            if await label(at, "1", sample) != await label(at, "3", sample)
        ]
        assert 0 < len(differing) < 30
        trial = await at.trial("3", 1_000)
        assert (trial.primaries, trial.replayable, trial.sampled, trial.by_version) == (30, 30, 30, {"1": 30})
        assert (trial.flipped, trial.agreed, trial.failed) == (len(differing), 30 - len(differing), 0)
        assert trial.agreement == trial.agreed / 30
        assert (trial.identical, trial.not_identical) == (30, 0)
        assert sorted(flip.record_id for flip in trial.flips) == sorted(differing)
        assert all(flip.version == "1" and "output label: " in flip.why for flip in trial.flips)
        assert {one.name: one.flips for one in trial.outputs}["label"] == len(differing)
        assert [one.runs for one in (trial.recorded, trial.again, trial.candidate) if one is not None] == [30] * 3
        assert (trial.recorded.p50_us, trial.recorded.p99_us) == (100, 100)
        assert not trial.agrees
        assert at.progress[-1] == (60, 60)

    with_bench(test)


def test_a_version_agrees_with_itself(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        for sample in range(5):
            await at.serve(sample)
        trial = await at.trial("2", 1_000)
        assert (trial.agreement, trial.agrees, trial.flips) == (1.0, True, ())
        assert all(one.largest is None for one in trial.outputs)

    with_bench(test)


def test_the_sample_is_the_same_whatever_the_candidate_and_however_often(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        for sample in range(20):
            _, answer = await at.answer("2", digit(sample))
            at.write(at.record(), digit(sample), changed(answer, "label", [77]))
        samples = [sorted(flip.record_id for flip in (await at.trial(version, 7)).flips) for version in ("2", "3", "2")]
        assert [len(one) for one in samples] == [7, 7, 7]
        assert samples[0] == samples[1] == samples[2]
        larger = await at.trial("2", 12)
        assert set(samples[0]) < {flip.record_id for flip in larger.flips}
        assert (larger.primaries, larger.replayable, larger.sampled) == (20, 20, 12)

    with_bench(test)


def test_requests_that_cannot_be_replayed_are_passed_over_by_reason(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        kept = await at.serve()
        await at.serve(policy=Capture(request="digest"))
        await at.serve(policy=Capture(max_bytes=9))
        erased = await at.serve()
        at.store.erase(at.store.places_of(bytes.fromhex(erased.unit)), "01a2-erasure")
        failed = {"served": None, "outcome": "failed", "status": 502}
        at.write(at.record(**failed), digit(0), b"{}")
        at.write(shadow_of(kept, 1), digit(0), b"{}")
        trial = await at.trial("2", 10)
        assert (trial.primaries, trial.replayable, trial.sampled) == (5, 1, 1)
        assert trial.passed_over == {
            "its request was not kept (the route's capture.request)": 1,
            "only the beginning of its request was kept (the route's capture.max_bytes)": 1,
            "its contents were erased for good": 1,
            "no version had answered it": 1,
        }

    with_bench(test)


def test_only_the_stretch_that_is_asked_for_is_tried(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        for sample in range(4):
            await at.serve(sample, received_ns=NOON_NS + sample)
        trial = await at.trial("2", 10, since_ns=NOON_NS + 1, until_ns=NOON_NS + 3)
        assert trial.primaries == 2

    with_bench(test)


def test_a_candidate_that_refuses_or_fails_is_no_agreement(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        # What version 2 once took as a request of its own form is one that no version takes now.
        at.write(at.record(), b'{"inputs": []}', b'{"outputs": []}')
        await at.serve()
        trial = await at.trial("3", 10)
        assert (trial.failed, trial.agreed + trial.flipped, trial.agrees) == (1, 1, False)
        assert "it answers 400 (invalid_input)" in [flip.why for flip in trial.flips]
        assert trial.not_identical == 1

    with_bench(test)


def test_what_cannot_be_compared_and_who_does_not_run_again_is_told(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        await at.serve(version="1", policy=Capture(response="none"))
        at.write(at.record("1"), digit(1), b"no answer at all")
        del at.registered["1"]
        trial = await at.trial("3", 10)
        assert trial.not_again == {"version 1 of model digits is not registered": 2}
        assert (trial.again, trial.agreement, trial.agrees) == (None, None, False)
        assert sum(trial.uncompared.values()) == 2

    with_bench(test)


def test_a_trial_of_nothing_does_not_agree_and_one_of_no_version_is_refused(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        trial = await at.trial("3", 10)
        assert (trial.primaries, trial.recorded, trial.agreement, trial.agrees) == (0, None, None, False)
        with pytest.raises(CannotReplay, match="version 9 of model digits is not registered"):
            await at.trial("9", 10)

    with_bench(test)


def test_flips_are_listed_up_to_a_bound_and_all_counted(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        _, answer = await at.answer("2", digit(0))
        wrong = changed(answer, "label", [77])
        for _ in range(MOST_LISTED + 3):
            at.write(at.record(), digit(0), wrong)
        trial = await at.trial("2", 1_000)
        assert (trial.flipped, len(trial.flips), trial.left_out) == (MOST_LISTED + 3, MOST_LISTED, 3)

    with_bench(test)
