"""What every rules store promises: changes, history, reading, acknowledgements. See also the suites beside this one."""

import asyncio
from time import monotonic

import pytest

from gateway.errors import DocumentNotFound, InvalidDocument, RevisionConflict, RulesUnavailable
from gateway.ports import Acknowledgement, DocumentChange, Head, Kind, Revision, RulesStore, StoredDocument, Write
from tests.contracts.rules_store import AT_NS, OpenStore, change, route, run

# ── head ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_head_is_none_when_the_store_was_never_initialised(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        assert await store.head() is None
        with pytest.raises(RulesUnavailable):
            await store.load()
        with pytest.raises(RulesUnavailable):
            await store.apply(change("op", route(b"{}", 0)))

    run(open_store(), scenario, initialise=False)


def test_initialise_begins_one_epoch_and_keeps_it_when_called_again(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        first = await store.initialise()
        assert first.revision == 0
        assert await store.apply(change("op", route(b"{}", 0))) == 1
        assert await store.initialise() == Head(first.epoch, 1) == await store.head()

    run(open_store(), scenario)


# ── compare and set ──────────────────────────────────────────────────────────────────────────────────────────────


def test_document_is_read_back_byte_for_byte_with_its_revision(open_store: OpenStore) -> None:
    odd = '{"text":"ä/\\u0000 %d 12 €","empty":{},"list":[]}'.encode()

    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", Write("cohort", "beta", b"{}", 0)))
        await store.apply(change("op-2", route(odd, 0)))
        assert await store.read("route", "fraud") == StoredDocument(2, odd)
        assert await store.read("cohort", "fraud") is None

    run(open_store(), scenario)


@pytest.mark.parametrize("expected", [0, 2, 99])
def test_change_is_refused_when_the_document_has_another_revision(open_store: OpenStore, expected: int) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b'{"a":1}', 0)))
        with pytest.raises(RevisionConflict) as conflict:
            await store.apply(change("op-2", route(b'{"a":2}', expected)))
        assert conflict.value.current == 1
        assert "route fraud" in conflict.value.message
        assert await store.read("route", "fraud") == StoredDocument(1, b'{"a":1}')

    run(open_store(), scenario)


def test_conflict_says_that_the_document_does_not_exist_when_it_was_deleted(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0)))
        await store.apply(change("op-2", route(None, 1)))
        with pytest.raises(RevisionConflict, match="does not exist") as conflict:
            await store.apply(change("op-3", route(b"{}", 1)))
        assert conflict.value.current == 0

    run(open_store(), scenario)


def test_nothing_of_a_change_is_made_when_one_of_its_documents_conflicts(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", Write("cohort", "beta", b'{"v":1}', 0)))
        before = await store.load()
        writes = (route(b"{}", 0), Write("version", "fraud/1", b"{}", 0), Write("cohort", "beta", b'{"v":2}', 7))
        with pytest.raises(RevisionConflict, match="cohort beta"):
            await store.apply(change("op-2", *writes))
        assert await store.load() == before
        assert await store.revisions(1, 2) is None
        assert await store.applied("op-2") is None

    run(open_store(), scenario)


def test_all_documents_of_a_change_have_one_revision(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b'{"v":1}', 0)))
        await store.apply(change("op-2", route(b'{"v":2}', 1), Write("cohort", "beta", b"{}", 0)))
        assert (await store.load()).documents == {
            ("route", "fraud"): StoredDocument(2, b'{"v":2}'),
            ("cohort", "beta"): StoredDocument(2, b"{}"),
        }

    run(open_store(), scenario)


def test_required_documents_must_exist_when_the_change_is_made(open_store: OpenStore) -> None:
    needs: tuple[tuple[Kind, str], ...] = (("version", "fraud/1"), ("cohort", "beta"))

    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", Write("version", "fraud/1", b"{}", 0)))
        with pytest.raises(DocumentNotFound, match="cohort beta"):
            await store.apply(change("op-2", route(b"{}", 0), requires=needs))
        assert await store.head() == Head((await store.initialise()).epoch, 1)
        await store.apply(change("op-3", Write("cohort", "beta", b"{}", 0)))
        assert await store.apply(change("op-2", route(b"{}", 0), requires=needs)) == 3

    run(open_store(), scenario)


def test_required_document_that_the_same_change_writes_counts_as_there_and_one_it_deletes_does_not(
    open_store: OpenStore,
) -> None:
    needs: tuple[tuple[Kind, str], ...] = (("version", "fraud/1"), ("cohort", "beta"))

    async def scenario(store: RulesStore) -> None:
        version, cohort = Write("version", "fraud/1", b"{}", 0), Write("cohort", "beta", b"{}", 0)
        assert await store.apply(change("op-1", route(b"{}", 0), version, cohort, requires=needs)) == 1
        gone = Write("cohort", "beta", None, 1)
        with pytest.raises(DocumentNotFound, match="cohort beta does not exist"):
            await store.apply(change("op-2", route(b"[]", 1), gone, requires=needs))
        assert await store.apply(change("op-2", route(b"[]", 1), gone)) == 2

    run(open_store(), scenario)


def test_thousands_of_documents_change_together_or_not_at_all(open_store: OpenStore) -> None:
    count = 3000

    async def scenario(store: RulesStore) -> None:
        names = [f"model-{number}/1" for number in range(count)]
        needs: tuple[tuple[Kind, str], ...] = tuple(("version", name) for name in names)
        first = [Write("version", name, b"{}", 0) for name in names]
        assert await store.apply(change("op-1", *first, requires=needs)) == 1
        again = [Write("version", name, b"[]", 1) for name in names]
        with pytest.raises(RevisionConflict, match="version model-2999/1"):
            await store.apply(change("op-2", *again[:-1], Write("version", names[-1], b"[]", 7)))
        assert set((await store.read_all("version")).values()) == {StoredDocument(1, b"{}")}
        assert await store.apply(change("op-2", *again)) == 2
        assert set((await store.read_all("version")).values()) == {StoredDocument(2, b"[]")}
        made = await store.revisions(1, 2)
        assert made is not None
        assert [one.name for one in made[0].changes] == names

    run(open_store(), scenario)


def test_change_is_refused_when_the_head_has_moved_on(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0)))
        with pytest.raises(RevisionConflict) as conflict:
            await store.apply(change("op-2", route(None, 1), expect_head=0))
        assert conflict.value.current == 1
        assert await store.apply(change("op-2", route(None, 1), expect_head=1)) == 2

    run(open_store(), scenario)


def test_increments_of_twenty_concurrent_editors_are_all_kept(open_store: OpenStore) -> None:
    editors, increments = 20, 5

    async def edit(store: RulesStore, editor: int) -> None:
        for number in range(increments):
            while True:
                present = await store.read("route", "counter")
                value, revision = (int(present.json), present.revision) if present else (0, 0)
                write = route(b"%d" % (value + 1), revision, "counter")
                try:
                    await store.apply(change(f"{editor}-{number}", write))
                    break
                except RevisionConflict:
                    continue

    async def scenario(store: RulesStore) -> None:
        await asyncio.gather(*(edit(store, editor) for editor in range(editors)))
        total = editors * increments
        assert await store.read("route", "counter") == StoredDocument(total, b"%d" % total)
        history = await store.revisions(0, total)
        assert history is not None
        assert [r.changes[0].after for r in history] == [b"%d" % n for n in range(1, total + 1)]

    run(open_store(), scenario)


@pytest.mark.parametrize("writes", [(), (route(b"1", 0), route(b"2", 0))], ids=["nothing", "one document twice"])
def test_change_is_refused_when_its_documents_make_no_sense(open_store: OpenStore, writes: tuple[Write, ...]) -> None:
    async def scenario(store: RulesStore) -> None:
        with pytest.raises(InvalidDocument):
            await store.apply(change("op", *writes))

    run(open_store(), scenario)


# ── sending again ────────────────────────────────────────────────────────────────────────────────────────────────


def test_same_operation_sent_again_returns_its_revision_and_changes_nothing(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        first = change("op-1", route(b'{"v":1}', 0))
        assert await store.apply(first) == 1
        assert await store.apply(change("op-2", route(b'{"v":2}', 1))) == 2
        assert await store.apply(first) == 1
        assert await store.read("route", "fraud") == StoredDocument(2, b'{"v":2}')
        assert (await store.load()).head.revision == 2
        assert await store.applied("op-1") == 1
        assert await store.applied("op-3") is None

    run(open_store(), scenario)


def test_operation_sent_many_times_at_once_is_made_once(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        again = [store.apply(change("op", route(b"{}", 0))) for _ in range(20)]
        assert set(await asyncio.gather(*again)) == {1}
        assert (await store.load()).head.revision == 1

    run(open_store(), scenario)


# ── history ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_history_has_who_why_when_and_every_document_before_and_after(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route('{"ü":"\\" / \\\\"}'.encode(), 0), Write("cohort", "beta", b"{}", 0)))
        await store.apply(change("op-2", route(b"[2]", 1)))
        await store.apply(change("op-3", route(None, 2)))
        at_ns, who, why = AT_NS, "ann", "a comment"
        first, fraud = '{"ü":"\\" / \\\\"}'.encode(), "fraud"
        assert await store.revisions(0, 3) == [
            Revision(
                1,
                who,
                why,
                "op-1",
                at_ns,
                (DocumentChange("route", fraud, None, first), DocumentChange("cohort", "beta", None, b"{}")),
            ),
            Revision(2, who, why, "op-2", at_ns, (DocumentChange("route", fraud, first, b"[2]"),)),
            Revision(3, who, why, "op-3", at_ns, (DocumentChange("route", fraud, b"[2]", None),)),
        ]
        assert await store.read("route", fraud) is None

    run(open_store(), scenario)


def test_revisions_returns_the_range_after_one_up_to_another(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        for number in range(6):
            await store.apply(change(f"op-{number}", route(b"{}", number)))
        found = await store.revisions(2, 5)
        assert found is not None
        assert [revision.revision for revision in found] == [3, 4, 5]
        assert await store.revisions(4, 4) == []

    run(open_store(), scenario)


def test_revisions_is_none_when_some_are_no_longer_or_not_yet_there(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        for number in range(6):
            await store.apply(change(f"op-{number}", route(b"{}", number)))
        assert await store.revisions(2, 6) is None
        assert await store.revisions(4, 7) is None
        kept = await store.revisions(3, 6)
        assert kept is not None
        assert len(kept) == 3

    run(open_store(history_kept=3), scenario)


def test_revision_keeps_the_preview_that_came_with_the_change(open_store: OpenStore) -> None:
    preview = '{"callers_moved":67,"models":["\\u0000 ä"]}'.encode()

    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0), preview=preview))
        await store.apply(change("op-2", route(b"[]", 1)))
        assert [one.preview for one in await store.history(0, 10)] == [preview, None]

    run(open_store(), scenario)


def test_history_returns_what_is_kept_beyond_a_revision_oldest_first(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        assert await store.history(0, 5) == []
        for number in range(230):
            await store.apply(change(f"op-{number}", route(b"%d" % number, number)))
        kept = await store.history(0, 1000)
        assert [one.revision for one in kept] == list(range(21, 231))  # the oldest are no longer there
        assert kept[0].changes == (DocumentChange("route", "fraud", b"19", b"20"),)
        assert [one.revision for one in await store.history(28, 3)] == [29, 30, 31]
        assert [one.revision for one in await store.history(25, 150)] == list(range(26, 176))
        assert await store.history(230, 5) == []
        assert await store.history(0, 0) == []

    run(open_store(history_kept=210), scenario)


# ── reading everything ───────────────────────────────────────────────────────────────────────────────────────────


def test_load_is_as_of_one_head_while_others_change_the_rules(open_store: OpenStore) -> None:
    models, rounds = 1500, 30

    async def scenario(store: RulesStore) -> None:
        everything = tuple(route(b"0", 0, f"model-{n}") for n in range(models))
        await store.apply(change("begin", *everything))
        done = asyncio.Event()

        async def keep_changing() -> None:
            # Two routes far apart always change together, one comes and goes.
            for number in range(1, rounds):
                at = number if number > 1 else 1
                pair = [route(b"%d" % number, at, name) for name in ("model-0", "model-1499")]
                fleeting = route(b"x", 0, "fleeting") if number % 2 else route(None, at, "fleeting")
                await store.apply(change(f"op-{number}", *pair, fleeting))
            done.set()

        changing = asyncio.create_task(keep_changing())
        heads = set()
        while not done.is_set():
            state = await store.load()
            heads.add(state.head.revision)
            number = state.head.revision - 1
            expected = b"%d" % number
            assert state.documents["route", "model-0"].json == expected
            assert state.documents["route", "model-1499"].json == expected
            assert (("route", "fleeting") in state.documents) == (number % 2 == 1)
            assert len(state.documents) == models + number % 2
        await changing
        assert len(heads) > 1

    run(open_store(), scenario)


def test_read_all_returns_one_kind_and_can_narrow_it_to_a_prefix(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        names = ["a/1", "a/2", "ab/1", "b/1"]
        await store.apply(change("op", *(Write("version", name, b"{}", 0) for name in names), route(b"{}", 0, "a")))
        assert sorted(await store.read_all("version")) == names
        assert sorted(await store.read_all("version", prefix="a/")) == ["a/1", "a/2"]
        assert await store.read_all("cohort") == {}

    run(open_store(), scenario)


# ── acknowledgements ─────────────────────────────────────────────────────────────────────────────────────────────


def test_acknowledgements_have_what_each_worker_said_last_and_how_long_ago(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.acknowledge(Acknowledgement("w1", Head("e", 3)))
        await store.acknowledge(Acknowledgement("w0", Head("e", 4), {"fraud": "version 2 cannot be prepared: ä"}))
        await store.acknowledge(Acknowledgement("w1", Head("e", 4)))
        said = await store.acknowledgements()
        assert [(one.worker, one.head, dict(one.problems)) for one in said] == [
            ("w0", Head("e", 4), {"fraud": "version 2 cannot be prepared: ä"}),
            ("w1", Head("e", 4), {}),
        ]
        assert all(0 <= one.age_ms < 60_000 for one in said)
        older, deadline = said[0].age_ms, monotonic() + 10
        while (await store.acknowledgements())[0].age_ms == older:  # it grows without anybody saying anything
            assert monotonic() < deadline
            await asyncio.sleep(0.002)
        await store.withdraw("w1")
        assert [one.worker for one in await store.acknowledgements()] == ["w0"]

    run(open_store(), scenario)


def test_acknowledgement_carries_since_when_what_is_wrong_and_whether_the_worker_is_ready(
    open_store: OpenStore,
) -> None:
    async def scenario(store: RulesStore) -> None:
        alarms = {"behind": "the store lost revision 41: ä"}
        said = Acknowledgement("w", Head("e", 3), since_ms=1_700_000_000_123, alarms=alarms, ready=False)
        await store.acknowledge(said)
        [read] = await store.acknowledgements()
        assert (read.since_ms, dict(read.alarms), read.ready) == (said.since_ms, alarms, False)

    run(open_store(), scenario)


# ── notices ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_notices_yield_when_listening_has_begun_and_after_every_change(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        listening = store.notices()
        async with asyncio.timeout(10):
            await anext(listening)
            for number in range(3):
                await store.apply(change(f"op-{number}", route(b"{}", number)))
                await anext(listening)

    run(open_store(), scenario)
