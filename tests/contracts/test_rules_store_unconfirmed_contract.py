"""What every rules store promises about changes that are taken back unless somebody confirms them."""

import asyncio
from time import monotonic
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from gateway.errors import RevisionConflict, UnconfirmedChange
from gateway.ports import Head, RulesStore, StoredDocument, Write
from tests.contracts.rules_store import OpenStore, change, resettlement, route, run

HOUR_MS = 3_600_000


def cohort(json: bytes | None, expect: int, name: str = "beta") -> Write:
    return Write("cohort", name, json, expect)


def test_unconfirmed_change_is_in_force_and_listed_with_the_time_it_has(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        assert await store.unconfirmed() == []
        await store.apply(change("op-1", route(b"{}", 0), confirm_within_ms=HOUR_MS))
        await store.apply(change("op-2", cohort(b"{}", 0), route(b"{}", 0, "churn"), confirm_within_ms=60_000))
        assert await store.read("route", "fraud") == StoredDocument(1, b"{}")
        first, second = await store.unconfirmed()
        assert (first.revision, first.documents) == (1, (("route", "fraud"),))
        assert (second.revision, second.documents) == (2, (("cohort", "beta"), ("route", "churn")))
        assert HOUR_MS - 60_000 < first.remaining_ms <= HOUR_MS
        assert 0 < second.remaining_ms <= 60_000

    run(open_store(), scenario)


def test_unconfirmed_change_is_due_when_its_time_is_over_and_waits_on_until_it_is_settled(
    open_store: OpenStore,
) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), confirm_within_ms=1))
        deadline = monotonic() + 10
        while (await store.unconfirmed())[0].remaining_ms > 0:
            assert monotonic() < deadline
            await asyncio.sleep(0.002)
        with pytest.raises(UnconfirmedChange):
            await store.apply(change("op-2", route(b"[]", 1)))

    run(open_store(), scenario)


@pytest.mark.parametrize("json", [b"[]", None], ids=["changed", "deleted"])
def test_document_of_an_unconfirmed_change_takes_no_other_change(open_store: OpenStore, json: bytes | None) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), cohort(b"{}", 0), confirm_within_ms=HOUR_MS))
        with pytest.raises(UnconfirmedChange, match="cohort beta was changed by revision 1") as refused:
            await store.apply(change("op-2", route(b"{}", 0, "churn"), cohort(json, 1)))
        assert refused.value.current == 1
        assert await store.read("route", "churn") is None
        assert await store.apply(change("op-3", route(b"{}", 0, "churn"))) == 2  # others are free

    run(open_store(), scenario)


def test_document_deleted_by_an_unconfirmed_change_cannot_be_made_anew(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", cohort(b"{}", 0)))
        await store.apply(change("op-2", cohort(None, 1), confirm_within_ms=HOUR_MS))
        with pytest.raises(UnconfirmedChange):
            await store.apply(change("op-3", cohort(b"[]", 0)))

    run(open_store(), scenario)


def test_documents_are_free_when_the_change_is_confirmed(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), cohort(b"{}", 0), confirm_within_ms=HOUR_MS))
        head = await store.head()
        assert await store.confirm(1) is True
        assert await store.head() == head  # nothing of the rules has changed
        assert await store.unconfirmed() == []
        assert await store.confirm(1) is False
        assert await store.confirm(77) is False
        assert await store.apply(change("op-2", route(b"[]", 1), cohort(b"[]", 1))) == 2

    run(open_store(), scenario)


def test_change_that_settles_an_unconfirmed_one_may_overwrite_it_and_frees_all_its_documents(
    open_store: OpenStore,
) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), cohort(b"{}", 0), confirm_within_ms=HOUR_MS))
        back = change("revert-1", route(None, 1), settles=1)
        assert await store.apply(back) == 2
        assert await store.unconfirmed() == []
        assert await store.apply(back) == 2  # any number of those who look after it may send it
        assert await store.apply(change("op-2", cohort(b"[]", 1))) == 3

    run(open_store(), scenario)


def test_change_is_refused_when_what_it_settles_does_not_wait_any_more(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), confirm_within_ms=HOUR_MS))
        await store.confirm(1)
        with pytest.raises(UnconfirmedChange, match="revision 1 does not wait"):
            await store.apply(change("revert-1", route(None, 1), settles=1))
        assert await store.read("route", "fraud") == StoredDocument(1, b"{}")

    run(open_store(), scenario)


def test_change_that_settles_one_may_not_touch_documents_of_another(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), confirm_within_ms=HOUR_MS))
        await store.apply(change("op-2", cohort(b"{}", 0), confirm_within_ms=HOUR_MS))
        with pytest.raises(UnconfirmedChange, match="cohort beta was changed by revision 2"):
            await store.apply(change("revert-1", route(None, 1), cohort(None, 2), settles=1))
        assert [one.revision for one in await store.unconfirmed()] == [1, 2]

    run(open_store(), scenario)


def test_change_that_settles_one_can_itself_wait_to_be_confirmed(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), confirm_within_ms=HOUR_MS))
        await store.apply(change("op-2", route(b"[]", 1), settles=1, confirm_within_ms=HOUR_MS))
        assert [(one.revision, one.documents) for one in await store.unconfirmed()] == [(2, (("route", "fraud"),))]
        with pytest.raises(UnconfirmedChange):
            await store.apply(change("op-3", route(b"{}", 2)))

    run(open_store(), scenario)


def test_resettlement_settles_the_documents_that_it_writes_and_no_others(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        head = await store.initialise()
        await store.apply(change("op-1", route(b"{}", 0), cohort(b"{}", 0), confirm_within_ms=HOUR_MS))
        await store.apply(change("op-2", route(b"{}", 0, "churn"), confirm_within_ms=HOUR_MS))
        writes = (route(b"[1]", 0), route(b"[2]", 0, "churn"))
        await store.resettle(resettlement("op-3", "new", *writes, seen=Head(head.epoch, 2)))
        [left] = await store.unconfirmed()
        assert (left.revision, left.documents) == (1, (("cohort", "beta"),))
        assert left.remaining_ms > HOUR_MS - 60_000
        assert await store.apply(change("op-4", route(b"[3]", 3), route(None, 3, "churn"))) == 4
        with pytest.raises(UnconfirmedChange):
            await store.apply(change("op-5", cohort(b"[]", 1)))

    run(open_store(), scenario)


# ── any sequence of changes ──────────────────────────────────────────────────────────────────────────────────────

NAMES = ("a", "b", "c")


class Step(Struct, frozen=True):
    """Change some documents, as they are or as somebody once saw them; or confirm an unconfirmed revision."""

    writes: dict[str, bool]  # name → whether it is set rather than deleted
    stale: bool
    confirm_within_ms: int | None
    settle: int | None  # which of the unconfirmed revisions, if there are any
    confirms: bool


steps = st.builds(
    Step,
    writes=st.dictionaries(st.sampled_from(NAMES), st.booleans(), min_size=1),
    stale=st.sampled_from([False, False, False, True]),
    confirm_within_ms=st.none() | st.just(HOUR_MS),
    settle=st.none() | st.integers(0, 2),
    confirms=st.booleans(),
)


class Expected:
    """What the documents and the unconfirmed revisions have to be: the promise in a few lines."""

    def __init__(self) -> None:
        self.revisions: dict[str, int] = {}
        self.waiting: dict[int, set[str]] = {}

    def settled_by(self, step: Step) -> int | None:
        return (
            sorted(self.waiting)[step.settle % len(self.waiting)] if step.settle is not None and self.waiting else None
        )

    def refusal(self, step: Step) -> type[Exception] | None:
        held = set().union(*(names for number, names in self.waiting.items() if number != self.settled_by(step)))
        if held & step.writes.keys():
            return UnconfirmedChange
        return RevisionConflict if step.stale else None

    def make(self, step: Step, revision: int) -> None:
        self.waiting.pop(self.settled_by(step) or 0, None)
        if step.confirm_within_ms is not None:
            self.waiting[revision] = set(step.writes)
        for name, is_set in step.writes.items():
            self.revisions[name] = revision if is_set else 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(steps, max_size=12))
def test_any_sequence_of_changes_ends_as_promised(open_store: OpenStore, sequence: list[Step]) -> None:
    prefix = uuid4().hex  # documents of its own for each example, in the one store

    async def take(store: RulesStore, step: Step, expected: Expected, number: int) -> None:
        settles = expected.settled_by(step)
        if step.confirms and settles is not None:
            assert await store.confirm(settles)
            del expected.waiting[settles]
            return
        writes = []
        for name, is_set in step.writes.items():
            present = expected.revisions.get(name, 0) + (1_000_000 if step.stale else 0)
            writes.append(Write("route", f"{prefix}-{name}", b"%d" % number if is_set else None, present))
        operation = f"{prefix}-{number}"
        wanted = change(operation, *writes, settles=settles, confirm_within_ms=step.confirm_within_ms)
        refusal = expected.refusal(step)
        if refusal is not None:
            with pytest.raises(refusal):
                await store.apply(wanted)
            assert await store.applied(operation) is None
        else:
            revision = await store.apply(wanted)
            expected.make(step, revision)
            assert await store.apply(wanted) == revision

    async def scenario(store: RulesStore) -> None:
        expected = Expected()
        for number, step in enumerate(sequence):
            await take(store, step, expected, number)
            found = {name: one.revision for name, one in (await store.read_all("route", prefix)).items()}
            assert found == {f"{prefix}-{name}": at for name, at in expected.revisions.items() if at}
            waiting = {one.revision: {name for _, name in one.documents} for one in await store.unconfirmed()}
            ours = {one: {f"{prefix}-{name}" for name in names} for one, names in expected.waiting.items()}
            assert waiting == ours

    async def alone(store: RulesStore) -> None:
        try:
            await scenario(store)
        finally:
            for one in await store.unconfirmed():
                await store.confirm(one.revision)

    run(open_store(), alone)
