"""What every rules store promises when it may have lost rules: the floor of changes, and a new life after a loss."""

import pytest

from gateway.errors import InvalidDocument, RevisionConflict, RulesInDoubt, RulesUnavailable
from gateway.ports import DocumentChange, Head, Resettlement, RulesStore, StoredDocument, Write
from tests.contracts.rules_store import OpenStore, change, resettlement, route, run

# ── the floor ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_change_is_made_when_the_store_is_at_the_floor_or_above(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        epoch = (await store.initialise()).epoch
        assert await store.apply(change("op-1", route(b"{}", 0), floor=Head(epoch, 0))) == 1
        assert await store.apply(change("op-2", route(b"{}", 1), floor=Head(epoch, 0))) == 2
        assert await store.apply(change("op-3", route(b"{}", 2), floor=Head(epoch, 2))) == 3

    run(open_store(), scenario)


def test_change_is_refused_and_nothing_is_made_when_the_store_is_behind_the_floor(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        epoch = (await store.initialise()).epoch
        await store.apply(change("op-1", route(b"{}", 0)))
        with pytest.raises(RulesInDoubt, match=f"is at revision 1 of epoch {epoch}, but revision 12 of epoch") as doubt:
            await store.apply(change("op-2", route(b"[]", 1), floor=Head(epoch, 12)))
        for word in ("pointsman rules republish", "pointsman rules accept", "pointsman status"):
            assert word in doubt.value.message
        assert await store.read("route", "fraud") == StoredDocument(1, b"{}")
        assert await store.head() == Head(epoch, 1)

    run(open_store(), scenario)


def test_change_is_refused_when_the_store_has_begun_another_life(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0)))
        with pytest.raises(RulesInDoubt, match="epoch another"):
            await store.apply(change("op-2", route(b"[]", 1), floor=Head("another", 0)))

    run(open_store(), scenario)


def test_change_is_in_doubt_when_the_store_has_nothing_though_a_head_is_known(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        with pytest.raises(RulesInDoubt, match="pointsman rules republish"):
            await store.apply(change("op", route(b"{}", 0), floor=Head("known", 7)))

    run(open_store(), scenario, initialise=False)


def test_repeated_operation_returns_its_revision_even_when_nothing_else_holds_any_more(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        await store.apply(change("op-1", route(b"{}", 0)))
        await store.apply(change("op-2", route(b"{}", 1), confirm_within_ms=60_000))
        impossible = change(
            "op-1",
            route(b"[]", 99),
            requires=(("cohort", "none"),),
            expect_head=99,
            floor=Head("another", 99),
            settles=99,
        )
        assert await store.apply(impossible) == 1
        assert await store.read("route", "fraud") == StoredDocument(2, b"{}")

    run(open_store(), scenario)


# ── a new life ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_resettlement_begins_a_new_epoch_with_its_documents_beyond_every_known_revision(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        old = await store.initialise()
        await store.apply(change("op-1", route(b'{"v":1}', 0), Write("cohort", "beta", b"{}", 0)))
        await store.apply(change("op-2", route(b"{}", 0, "churn")))
        writes = (route(b'{"v":2}', 0), route(None, 0, "churn"), route(None, 0, "lost"))
        settled = resettlement("op-3", "new", *writes, seen=Head(old.epoch, 2), beyond=40, follows={old.epoch: 2})
        head = await store.resettle(settled)
        assert head == Head("new", 41) == await store.head()
        assert await store.follows() == {old.epoch: 2}
        assert (await store.load()).documents == {
            ("route", "fraud"): StoredDocument(41, b'{"v":2}'),
            ("cohort", "beta"): StoredDocument(1, b"{}"),
        }
        assert [one.revision for one in await store.history(0, 10)] == [1, 2, 41]
        made = (await store.history(2, 1))[0]
        assert (made.actor, made.comment, made.operation_id) == ("ann", "a comment", "op-3")
        assert made.changes == (
            DocumentChange("route", "fraud", b'{"v":1}', b'{"v":2}'),
            DocumentChange("route", "churn", b"{}", None),
            DocumentChange("route", "lost", None, None),
        )
        assert await store.apply(change("op-4", route(b"[]", 41), floor=head)) == 42

    run(open_store(), scenario)


def test_resettlement_is_beyond_the_seen_head_when_that_is_the_newest(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        old = await store.initialise()
        for number in range(5):
            await store.apply(change(f"op-{number}", route(b"{}", number)))
        assert await store.resettle(resettlement("op", "new", seen=Head(old.epoch, 5), beyond=3)) == Head("new", 6)
        made = await store.revisions(5, 6)
        assert made is not None
        assert made[0].changes == ()

    run(open_store(), scenario)


def test_resettlement_fills_an_empty_store(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        writes = (route(b"{}", 7), Write("version", "fraud/1", b"{}", 3))
        settled = resettlement("op", "new", *writes, beyond=11, follows={"lost": 11})
        assert await store.resettle(settled) == Head("new", 12)
        assert await store.initialise() == Head("new", 12)
        assert (await store.load()).documents == {
            ("route", "fraud"): StoredDocument(12, b"{}"),
            ("version", "fraud/1"): StoredDocument(12, b"{}"),
        }
        assert await store.follows() == {"lost": 11}

    run(open_store(), scenario, initialise=False)


def test_resettlement_is_refused_when_the_head_is_not_the_one_that_was_seen(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        epoch = (await store.initialise()).epoch
        await store.apply(change("op-1", route(b"{}", 0)))
        for seen in (Head(epoch, 0), Head(epoch, 2), Head("another", 1), None):
            with pytest.raises(RevisionConflict, match="is at revision 1 of epoch") as refused:
                await store.resettle(resettlement("op-2", "new", route(b"[]", 0), seen=seen))
            assert refused.value.current == 1
        assert await store.head() == Head(epoch, 1)
        assert await store.read("route", "fraud") == StoredDocument(1, b"{}")

    run(open_store(), scenario)


def test_resettlement_of_an_empty_store_is_refused_when_a_head_was_seen(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        with pytest.raises(RevisionConflict, match="has no head"):
            await store.resettle(resettlement("op", "new", seen=Head("old", 3)))
        assert await store.head() is None

    run(open_store(), scenario, initialise=False)


def test_resettlement_sent_again_returns_the_same_head_and_does_nothing(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        old = await store.initialise()

        def sent(epoch: str) -> Resettlement:
            return resettlement("op", epoch, route(b"{}", 0), seen=old, follows={old.epoch: 0})

        assert await store.resettle(sent("new")) == Head("new", 1)
        await store.apply(change("op-2", route(b"[]", 1)))
        assert await store.resettle(sent("new")) == Head("new", 1)
        assert await store.resettle(sent("newer")) == Head("new", 1)  # who sends again may have drawn another epoch
        assert await store.head() == Head("new", 2)
        assert await store.applied("op") == 1

    run(open_store(), scenario)


def test_earlier_lives_add_up_and_the_oldest_of_more_than_fifty_are_dropped(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        head = await store.initialise()
        assert await store.follows() == {}
        first = head.epoch
        for number in range(55):
            settled = resettlement(f"op-{number}", f"life-{number}", seen=head, follows={head.epoch: head.revision})
            head = await store.resettle(settled)
        follows = await store.follows()
        assert len(follows) == 50
        assert first not in follows
        assert {follows[f"life-{number}"] for number in range(4, 54)} == set(range(5, 55))
        again = resettlement("again", "last", seen=head, follows={"life-4": 99, head.epoch: head.revision})
        await store.resettle(again)
        assert (await store.follows())["life-4"] == 99
        assert len(await store.follows()) == 50

    run(open_store(), scenario)


def test_resettlement_is_refused_when_a_document_stands_in_it_twice(open_store: OpenStore) -> None:
    async def scenario(store: RulesStore) -> None:
        with pytest.raises(InvalidDocument, match="twice"):
            await store.resettle(resettlement("op", "new", route(b"1", 0), route(b"2", 0)))
        with pytest.raises(RulesUnavailable):
            await store.load()

    run(open_store(), scenario, initialise=False)
