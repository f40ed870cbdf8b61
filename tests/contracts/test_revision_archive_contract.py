"""What every archive of revisions does, whatever it is made of.

A new implementation adds one entry to ARCHIVES: a function that opens the archive of a folder, the same one each time.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import AuditUnavailable
from gateway.ports import DocumentChange, DocumentName, Head, Revision, RevisionArchive, StoredDocument
from gateway.stores.revisions_sqlite import SqliteRevisions

OPEN = Callable[[], RevisionArchive]
FRAUD: DocumentName = ("route", "fraud")
CHURN: DocumentName = ("route", "churn")
BETA: DocumentName = ("cohort", "beta")


def _open_sqlite(folder: Path) -> RevisionArchive:
    return SqliteRevisions(folder / "revisions.db")


ARCHIVES: dict[str, Callable[[Path], RevisionArchive]] = {"sqlite": _open_sqlite}


@pytest.fixture(params=sorted(ARCHIVES))
def open_archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OPEN]:
    """Open the test's archive, as often as the test likes."""
    opened: list[RevisionArchive] = []

    def open_one() -> RevisionArchive:
        opened.append(ARCHIVES[request.param](tmp_path))
        return opened[-1]

    yield open_one
    for archive in opened:
        archive.close()


@pytest.fixture
def archive(open_archive: OPEN) -> RevisionArchive:
    return open_archive()


def change(document: DocumentName, before: str | None, after: str | None) -> DocumentChange:
    return DocumentChange(*document, *(text.encode() if text is not None else None for text in (before, after)))


def revision(number: int, *changes: DocumentChange, life: str = "a", **fields: Any) -> Revision:
    """A revision whose operation is of one life of the store; without changes, it changes `fraud`."""
    made = changes or (change(FRAUD, "old", f"{life}{number}"),)
    return Revision(number, "ann", "why", f"op-{life}{number}", number * 1000, made, **fields)


def revisions(*numbers: int, life: str = "a") -> list[Revision]:
    return [revision(number, life=life) for number in numbers]


def numbers(found: Sequence[Revision]) -> list[int]:
    return [one.revision for one in found]


def as_of(archive: RevisionArchive, number: int, document: DocumentName = FRAUD) -> StoredDocument | None:
    return archive.as_of(number, [document]).get(document)


# ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_archive_knows_nothing(archive: RevisionArchive) -> None:
    assert archive.kept() is None
    assert archive.revision(1) is None
    assert list(archive.history(None, None, 10)) == []
    assert dict(archive.as_of(1, [FRAUD])) == {}
    assert archive.unbroken_since(1) is None
    assert archive.revision_at(2**62) is None


def test_a_revision_comes_back_as_it_was_kept(archive: RevisionArchive) -> None:
    odd = '{"text":"ä/\\u0000 %d 12 €\\n","empty":{}}'
    whole = Revision(
        1,
        "ann ä",
        "",
        "op",
        1_800_000_000_000_000_001,
        (change(FRAUD, None, odd), change(BETA, odd, None), change(("version", "fraud/1"), None, "{}")),
        b'{"callers_moved":3}',
    )
    archive.keep("e", [whole])
    assert archive.revision(1) == whole
    assert list(archive.history(None, None, 10)) == [whole]
    assert archive.kept() == Head("e", 1)


def test_what_is_kept_again_is_there_once_and_as_it_was(archive: RevisionArchive) -> None:
    archive.keep("e", revisions(1, 2))
    archive.keep("e", [revision(2, change(CHURN, None, "other")), revision(3)])
    assert list(archive.history(None, None, 10)) == revisions(3, 2, 1)
    assert archive.unbroken_since(3) == 1


def test_either_all_of_several_revisions_are_kept_or_none(archive: RevisionArchive) -> None:
    with pytest.raises((AuditUnavailable, OverflowError)):
        archive.keep("e", [revision(1), revision(2**80)])
    assert archive.kept() is None
    assert dict(archive.as_of(1, [FRAUD])) == {}


def test_everything_is_there_when_the_archive_is_opened_again(open_archive: OPEN) -> None:
    first = open_archive()
    first.keep("e", revisions(1, 2))
    first.close()
    again = open_archive()
    again.keep("e", revisions(3))
    assert again.kept() == Head("e", 3)
    assert as_of(again, 1) == StoredDocument(1, b"a1")
    assert again.unbroken_since(3) == 1


def test_closing_may_be_repeated_and_every_call_afterwards_says_so(archive: RevisionArchive) -> None:
    archive.close()
    archive.close()
    for call in (
        archive.kept,
        lambda: archive.keep("e", revisions(1)),
        lambda: archive.revision(1),
        lambda: archive.history(None, None, 1),
        lambda: archive.as_of(1, [FRAUD]),
        lambda: archive.unbroken_since(1),
        lambda: archive.revision_at(1),
    ):
        with pytest.raises(AuditUnavailable):
            call()


# ── looking back ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def lived(archive: RevisionArchive) -> RevisionArchive:
    """An archive of six revisions, of which the fourth changes two documents and the fifth deletes one."""
    archive.keep(
        "e",
        [
            revision(1, change(FRAUD, None, "f1")),
            revision(2, change(BETA, None, "b2")),
            revision(3, change(CHURN, None, "c3")),
            revision(4, change(FRAUD, "f1", "f4"), change(BETA, "b2", "b4")),
            revision(5, change(BETA, "b4", None)),
            revision(6, change(BETA, None, "b6")),
        ],
    )
    return archive


def test_documents_are_as_the_last_revision_up_to_then_left_them(lived: RevisionArchive) -> None:
    assert dict(lived.as_of(1, [FRAUD, BETA, CHURN])) == {FRAUD: StoredDocument(1, b"f1")}
    assert dict(lived.as_of(4, [FRAUD, BETA, CHURN])) == {
        FRAUD: StoredDocument(4, b"f4"),
        BETA: StoredDocument(4, b"b4"),
        CHURN: StoredDocument(3, b"c3"),
    }
    assert dict(lived.as_of(5, [FRAUD, BETA])) == {FRAUD: StoredDocument(4, b"f4")}
    assert as_of(lived, 6, BETA) == StoredDocument(6, b"b6")
    assert dict(lived.as_of(6, [])) == {}


@pytest.mark.parametrize("number", [7, 2**62, 2**70])
def test_nothing_is_known_of_revisions_beyond_the_last_one_kept(lived: RevisionArchive, number: int) -> None:
    assert as_of(lived, number) is None
    assert lived.unbroken_since(number) is None
    assert lived.revision(number) is None


@pytest.mark.parametrize("number", [0, -1])
def test_nothing_was_before_the_first_revision(lived: RevisionArchive, number: int) -> None:
    assert as_of(lived, number) is None
    assert lived.revision(number) is None


def test_history_is_of_the_documents_asked_for_newest_first_each_revision_once(lived: RevisionArchive) -> None:
    assert numbers(lived.history(None, None, 10)) == [6, 5, 4, 3, 2, 1]
    assert numbers(lived.history([FRAUD], None, 10)) == [4, 1]
    assert numbers(lived.history([FRAUD, BETA], None, 10)) == [6, 5, 4, 2, 1]
    assert numbers(lived.history([("route", "beta"), ("route", "' OR 1")], None, 10)) == []
    assert numbers(lived.history([], None, 10)) == []


def test_history_goes_on_below_a_revision_and_ends_at_its_limit(lived: RevisionArchive) -> None:
    assert numbers(lived.history(None, 4, 2)) == [3, 2]
    assert numbers(lived.history([FRAUD, BETA], 5, 2)) == [4, 2]
    assert numbers(lived.history([FRAUD], 2**70, 1)) == [4]
    assert numbers(lived.history(None, 1, 10)) == []


def test_the_revision_of_a_time_is_the_newest_that_was_made_by_then(lived: RevisionArchive) -> None:
    assert lived.revision_at(999) is None
    assert lived.revision_at(1000) == 1
    assert lived.revision_at(3999) == 3
    assert lived.revision_at(2**70) == 6


def test_the_revision_of_a_time_is_right_though_clocks_differ(archive: RevisionArchive) -> None:
    early = [Revision(number, "ann", "", f"op-{number}", at, ()) for number, at in ((1, 50), (2, 40), (3, 60))]
    archive.keep("e", early)
    assert [archive.revision_at(at) for at in (45, 55, 65)] == [2, 2, 3]


def test_a_revision_of_no_document_is_kept_like_any_other(archive: RevisionArchive) -> None:
    archive.keep("e", [revision(1), Revision(2, "ann", "accepted", "op", 1, ())])
    assert numbers(archive.history(None, None, 10)) == [2, 1]
    assert as_of(archive, 2) == StoredDocument(1, b"a1")


# ── gaps, and stores that lost changes ───────────────────────────────────────────────────────────────────────────


def test_what_lies_before_an_archive_that_began_later_is_unknown(archive: RevisionArchive) -> None:
    archive.keep("e", [revision(500, change(CHURN, None, "c")), *revisions(501)])
    assert archive.unbroken_since(501) == 500
    assert archive.unbroken_since(499) is None
    assert dict(archive.as_of(500, [FRAUD, CHURN])) == {CHURN: StoredDocument(500, b"c")}
    assert as_of(archive, 501) == StoredDocument(501, b"a501")


def test_nothing_is_guessed_across_a_gap(archive: RevisionArchive) -> None:
    archive.keep("e", revisions(1, 2))
    archive.keep("e", [revision(9, change(CHURN, None, "c"))])
    assert archive.unbroken_since(2) == 1
    assert as_of(archive, 2) == StoredDocument(2, b"a2")
    for number in (3, 8):
        assert archive.unbroken_since(number) is None
        assert as_of(archive, number) is None
    assert archive.unbroken_since(9) == 9
    assert as_of(archive, 9) is None
    assert as_of(archive, 9, CHURN) == StoredDocument(9, b"c")


def test_numbers_that_were_skipped_mean_the_revision_before_them(archive: RevisionArchive) -> None:
    archive.keep("e", revisions(1, 2))
    archive.keep("f", [*revisions(2), *revisions(9, life="b")])
    assert archive.unbroken_since(9) == 1
    assert archive.revision(5) is None
    assert as_of(archive, 5) == StoredDocument(2, b"a2")
    assert archive.unbroken_since(5) == 1


def test_lost_revisions_are_kept_and_are_not_the_past_of_what_came_after(archive: RevisionArchive) -> None:
    """The store went back from 5 to 3, and an operator let it go on from there with revision 6."""
    archive.keep("e", [*revisions(1, 2, 3), revision(4, change(CHURN, None, "lost")), revision(5)])
    archive.keep("f", [*revisions(1, 2, 3), revision(6, change(BETA, None, "b"), life="b")])
    assert archive.kept() == Head("f", 6)
    assert as_of(archive, 5) == StoredDocument(5, b"a5")
    assert as_of(archive, 5, CHURN) == StoredDocument(4, b"lost")
    assert as_of(archive, 6) == StoredDocument(3, b"a3")
    assert as_of(archive, 6, CHURN) is None
    assert archive.unbroken_since(6) == 1
    assert numbers(archive.history(None, None, 10)) == [6, 5, 4, 3, 2, 1]


def test_of_two_revisions_of_one_number_the_one_kept_last_is_meant(archive: RevisionArchive) -> None:
    archive.keep("e", revisions(1, 2, 3))
    archive.keep("e", [*revisions(1), *revisions(2, 3, life="b"), revision(4, change(CHURN, None, "c"), life="b")])
    assert archive.revision(2) == revision(2, life="b")
    assert numbers(archive.history(None, None, 10)) == [4, 3, 2, 1]
    assert numbers(archive.history([FRAUD], None, 10)) == [3, 2, 1]
    assert archive.history([FRAUD], None, 1)[0] == revision(3, life="b")
    assert as_of(archive, 2) == StoredDocument(2, b"b2")
    assert as_of(archive, 4) == StoredDocument(3, b"b3")


def test_a_store_that_went_back_twice_follows_on_where_it_came_from(archive: RevisionArchive) -> None:
    archive.keep("e", revisions(1, 2, 3, 4))
    archive.keep("e", [*revisions(1), *revisions(2, life="b")])  # restored from a copy of revision 1
    archive.keep("f", [*revisions(1, 2, 3), *revisions(9, life="c")])  # and then from a newer one
    assert as_of(archive, 9) == StoredDocument(9, b"c9")
    assert as_of(archive, 3) == StoredDocument(3, b"a3")
    assert as_of(archive, 2) == StoredDocument(2, b"b2")  # of this number, the one that was kept last
    archive.keep("f", [revision(10, change(CHURN, None, "c"), life="c")])
    assert archive.unbroken_since(10) == 1
    assert as_of(archive, 10) == StoredDocument(9, b"c9")


lives = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.sampled_from([FRAUD, BETA, CHURN]), min_size=1, max_size=5)),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives, st.integers(1, 3))
def test_documents_are_those_of_the_life_that_led_there(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[int, list[DocumentName]]], page: int
) -> None:
    """A store lives, loses what came after some revision, and goes on with a new life from there, again and again."""
    archive = SqliteRevisions(tmp_path_factory.mktemp("archive") / "revisions.db")
    history: list[Revision] = []
    beyond = 0
    for life, (survived, documents) in enumerate(story):
        history = history[:survived]
        for document in documents:
            beyond += 1
            history.append(revision(beyond, change(document, None, f"{life}-{beyond}"), life=str(life)))
        previous: list[Revision] = []
        for start in range(0, len(history), page):
            archive.keep(f"life-{life}", [*previous, *history[start : start + page]])
            previous = history[start : start + page][-1:]
        state: dict[DocumentName, StoredDocument] = {}
        for one in history:
            ((kind, name, after),) = [(c.kind, c.name, c.after) for c in one.changes]
            assert after is not None
            state[kind, name] = StoredDocument(one.revision, after)
            assert dict(archive.as_of(one.revision, [FRAUD, BETA, CHURN])) == state
    archive.close()
