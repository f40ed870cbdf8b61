"""The last good files: one line for each change, refused from the first wrong byte on, three generations."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ports import Head, StoredDocument
from gateway.snapshot import LastGood, Saved, last_known_revision
from gateway.snapshot import lastgood_generation as generation
from gateway.snapshot.lastgood_folder import bases
from gateway.snapshot.lastgood_log import Step, log_path
from tests.gateway.lastgood_rules import EPOCH, keep, rules_at, step


@pytest.fixture
def short_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is replaced by a new base after six lines."""
    monkeypatch.setattr(generation, "_MOST_LINES", 5)


def kept(folder: Path, upto: int, begin: int = 1) -> LastGood:
    """Return files that a worker has kept every revision in."""
    files = LastGood(folder)
    for revision in range(begin, upto + 1):
        keep(files, revision - 1 if revision > begin else None, revision)
    return files


def newest(folder: Path) -> Saved:
    saved = LastGood(folder).newest()
    assert saved is not None
    return saved


# ── bases ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "for it"
    assert LastGood(folder).newest() is None
    many = {("route", f"model-{n}"): StoredDocument(n, f'{{"ü":"\\"{n}"}}'.encode()) for n in range(1201)}
    for saved in (rules_at(7), Saved(Head(EPOCH, 8), "operation 8", many)):  # type: ignore[arg-type]
        LastGood(folder).write(saved)
        assert newest(folder) == saved
    assert (folder / "lkg-000000000007.json").stat().st_mode & 0o777 == 0o600


def test_rules_without_any_documents_are_kept_only_when_there_were_some(tmp_path: Path) -> None:
    nothing = Saved(Head(EPOCH, 5), "operation 5", {})
    LastGood(tmp_path / "rules").write(nothing)
    assert not (tmp_path / "rules").exists()
    LastGood(tmp_path / "rules").write(rules_at(4))
    LastGood(tmp_path / "rules").write(nothing)
    assert newest(tmp_path / "rules") == nothing


def test_rules_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    LastGood(tmp_path).write(rules_at(7))
    before = (tmp_path / "lkg-000000000007.json").stat()
    LastGood(tmp_path).write(rules_at(7))
    LastGood(tmp_path).write(rules_at(6))
    after = (tmp_path / "lkg-000000000007.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in bases(tmp_path)] == ["lkg-000000000007.json"]


def test_every_single_wrong_byte_of_a_base_is_found_and_the_generation_before_is_used(tmp_path: Path) -> None:
    LastGood(tmp_path).write(rules_at(6))
    LastGood(tmp_path).write(rules_at(7))
    path = tmp_path / "lkg-000000000007.json"
    whole = path.read_bytes()
    with structlog.testing.capture_logs() as lines:
        for place in range(len(whole)):
            for flip in (0x01, 0x20, 0x80):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
                assert newest(tmp_path) == rules_at(6), f"byte {place} of {whole!r} xor {flip}"
    assert {(line["event"], line["file"]) for line in lines} == {("last_good_refused", path.name)}


def test_file_under_the_name_of_another_revision_is_refused(tmp_path: Path) -> None:
    LastGood(tmp_path).write(rules_at(6))
    (tmp_path / "lkg-000000000006.json").rename(tmp_path / "lkg-000000000009.json")
    assert LastGood(tmp_path).newest() is None


def test_unfinished_files_of_dead_processes_are_removed_and_others_left(tmp_path: Path) -> None:
    abandoned, fresh = tmp_path / "lkg-000000000001.17.tmp", tmp_path / "lkg-000000000002.18.tmp"
    for path in (abandoned, fresh):
        path.write_bytes(b"{")
    os.utime(abandoned, (1, 1))
    LastGood(tmp_path).write(rules_at(7))
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == [fresh.name]


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_change_is_one_line_beside_the_base(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    base = (tmp_path / "lkg-000000000001.json").stat()
    for revision in range(2, 12):
        keep(LastGood(tmp_path), revision - 1, revision)  # by another process each time
        assert newest(tmp_path) == rules_at(revision)
    assert (tmp_path / "lkg-000000000001.json").stat() == base
    log = tmp_path / "lkg-000000000001.log"
    assert log.read_bytes().count(b"\n") == 10
    assert log.stat().st_mode & 0o777 == 0o600


def test_worker_that_skipped_revisions_goes_on_from_where_another_is(tmp_path: Path) -> None:
    files = kept(tmp_path, 5)
    late, early = LastGood(tmp_path), LastGood(tmp_path)
    assert early.append(step(3, 8))
    assert newest(tmp_path) == rules_at(8)
    assert late.append(step(5, 6))  # it is there, and newer
    assert files.append(step(5, 7))
    assert newest(tmp_path) == rules_at(8)
    assert late.append(step(6, 9))
    assert newest(tmp_path) == rules_at(9)


@pytest.mark.parametrize(
    "unfit",
    [step(7, 9), step(None, 9), step(3, 9, exact=True)],
    ids=["from a later revision", "from nothing", "by difference from another revision"],
)
def test_step_that_does_not_lead_on_from_the_disk_is_not_appended(tmp_path: Path, unfit: Step) -> None:
    files = kept(tmp_path, 5)
    assert not files.append(unfit)
    assert newest(tmp_path) == rules_at(5)
    files.write(rules_at(9))
    assert newest(tmp_path) == rules_at(9)
    assert files.append(step(9, 10))
    assert newest(tmp_path) == rules_at(10)


def test_rules_of_another_life_of_the_store_are_one_step_further(tmp_path: Path) -> None:
    files = kept(tmp_path, 3)
    before = rules_at(3)
    name, stored = next(iter(before.documents.items()))
    head = Head("another epoch", 9)
    resettled = Step(before.head, True, head, "resettle", {name: None}, len(before.documents) - 1)
    assert files.append(resettled)
    expected = Saved(head, "resettle", {other: one for other, one in before.documents.items() if other != name})
    assert newest(tmp_path) == expected
    # A worker that is late with a revision of the old life has nothing to add.
    assert LastGood(tmp_path).append(step(3, 4))
    LastGood(tmp_path).write(rules_at(4))
    assert newest(tmp_path) == expected
    assert stored.revision <= 3


def test_new_life_may_begin_at_a_lower_revision_when_nothing_was_there_to_lose(tmp_path: Path) -> None:
    LastGood(tmp_path).write(rules_at(7))
    emptied = Step(Head(EPOCH, 7), False, Head(EPOCH, 8), "empty", dict.fromkeys(rules_at(7).documents), 0)
    assert LastGood(tmp_path).append(emptied)
    fresh = Saved(Head("another epoch", 2), "first", rules_at(2).documents)
    worker = LastGood(tmp_path)
    assert not worker.append(Step(None, True, fresh.head, "first", dict(fresh.documents), len(fresh.documents)))
    worker.write(fresh)
    assert newest(tmp_path) == fresh
    assert [path.name for path in bases(tmp_path)] == ["lkg-000000000002.json"]


@pytest.mark.parametrize("torn", [1, 64, 65, 80, -1, 0], ids=lambda torn: f"{torn} bytes" if torn else "zeros")
def test_torn_line_is_refused_and_cut_by_the_next_writer(tmp_path: Path, torn: int) -> None:
    kept(tmp_path, 5)
    log = tmp_path / "lkg-000000000001.log"
    whole = log.read_bytes()
    kept(tmp_path / "further", 6)
    line = (tmp_path / "further" / log.name).read_bytes()[len(whole) :]
    log.write_bytes(whole + (line[:torn] if torn else bytes(5_000)))
    with structlog.testing.capture_logs() as lines:
        assert newest(tmp_path) == rules_at(5)
        assert LastGood(tmp_path).append(step(5, 6))
    assert [one["event"] for one in lines] == ["last_good_refused", "last_good_tail_cut"]
    assert newest(tmp_path) == rules_at(6)
    assert log.read_bytes() == whole + line


def test_log_that_was_cut_behind_our_back_is_noticed(tmp_path: Path) -> None:
    files = kept(tmp_path, 5)
    log = tmp_path / "lkg-000000000001.log"
    for end in (log.stat().st_size - 1, 0):
        with log.open("r+b") as file:
            file.truncate(end)
        assert not files.append(step(5, 6))
    files.write(rules_at(6))
    assert newest(tmp_path) == rules_at(6)


def test_line_that_is_taken_out_or_is_of_another_log_is_refused_with_all_after_it(tmp_path: Path) -> None:
    kept(tmp_path / "ours", 9)
    kept(tmp_path / "other", 9, begin=2)
    log = tmp_path / "ours" / "lkg-000000000001.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert newest(tmp_path / "ours") == rules_at(3)
    log.write_bytes(b"".join([*lines[:4], lines[3], *lines[4:]]))
    assert newest(tmp_path / "ours") == rules_at(5)
    log.write_bytes((tmp_path / "other" / "lkg-000000000002.log").read_bytes())
    assert newest(tmp_path / "ours") == rules_at(1)


def test_damage_in_the_midst_of_a_log_begins_a_new_generation(tmp_path: Path) -> None:
    kept(tmp_path, 9)
    log = tmp_path / "lkg-000000000001.log"
    content = log.read_bytes()
    second = content.index(b"\n") + 1
    log.write_bytes(content[: second + 70] + b"?" + content[second + 71 :])
    worker = LastGood(tmp_path)
    with structlog.testing.capture_logs() as lines:
        assert worker.newest() == rules_at(2)
    assert lines[0]["file"] == log.name
    keep(worker, 9, 10)  # the store has told it what came after
    assert newest(tmp_path) == rules_at(10)


# ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("short_logs")
def test_long_log_is_replaced_by_a_base_and_three_generations_are_kept(tmp_path: Path) -> None:
    kept(tmp_path, 30)
    assert newest(tmp_path) == rules_at(30)
    names = [path.name for path in bases(tmp_path)]
    assert names == ["lkg-000000000025.json", "lkg-000000000019.json", "lkg-000000000013.json"]
    logs = sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".log")
    assert logs == ["lkg-000000000013.log", "lkg-000000000019.log", "lkg-000000000025.log"]


def test_log_of_bytes_is_outgrown_at_a_mebibyte_and_half_of_its_base(tmp_path: Path) -> None:
    files = LastGood(tmp_path)
    large = StoredDocument(1, b'"' + b"x" * 4_000_000 + b'"')
    files.write(Saved(Head(EPOCH, 1), "operation 1", {("cohort", "all"): large}))
    for revision, size, outgrown in ((2, 1_500_000, False), (3, 400_000, False), (4, 400_000, True)):
        head = Head(EPOCH, revision)
        stored = StoredDocument(revision, b'"' + b"x" * size + b'"')
        assert files.append(Step(Head(EPOCH, revision - 1), False, head, "", {("cohort", "beta"): stored}, 2))
        assert files.is_outgrown(head) is outgrown


@pytest.mark.usefixtures("short_logs")
def test_lines_that_are_appended_while_a_base_is_written_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = kept(tmp_path, 6)
    assert files.append(step(6, 7))
    other = LastGood(tmp_path)
    meanwhile: Iterator[int] = iter([8, 9])
    sync = os.fdatasync

    def fsync_at_leisure(descriptor: int) -> None:
        for revision in meanwhile:
            assert other.append(step(revision - 1, revision))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync_at_leisure)
        files.rewrite(rules_at(7))
    assert bases(tmp_path)[0].name == "lkg-000000000007.json"
    assert newest(tmp_path) == rules_at(9)
    for writer in (files, other):
        since = newest(tmp_path).head.revision
        assert writer.append(step(since, since + 1))
    (tmp_path / "lkg-000000000007.json").unlink()
    assert newest(tmp_path) == rules_at(9)


@pytest.mark.usefixtures("short_logs")
def test_rewriting_that_is_stopped_leaves_everything_as_it_was(tmp_path: Path) -> None:
    files = kept(tmp_path, 6)
    assert files.append(step(6, 7))
    names = sorted(path.name for path in tmp_path.iterdir())
    files.stop()
    files.rewrite(rules_at(7))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "lkg.base.lock") == [
        name for name in names if name != "lkg.base.lock"
    ]
    assert newest(tmp_path) == rules_at(7)


def test_last_known_revision_counts_the_lines_of_the_logs(tmp_path: Path) -> None:
    assert last_known_revision(tmp_path / "nothing here") == 0
    kept(tmp_path, 9)
    assert last_known_revision(tmp_path) == 9
    (tmp_path / "lkg-000000000012.json").write_text("no base, but rules were in force here")
    assert last_known_revision(tmp_path) == 12


# ── a disk that fails ────────────────────────────────────────────────────────────────────────────────────────────


def test_full_disk_leaves_what_was_there_and_one_line_catches_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = kept(tmp_path, 5)
    content = (tmp_path / "lkg-000000000001.log").read_bytes()
    write = os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half)
        for revision in (6, 7):
            with pytest.raises(OSError, match="No space left"):
                files.append(step(5, revision))
    assert (tmp_path / "lkg-000000000001.log").read_bytes() == content
    assert files.append(step(5, 8))
    assert newest(tmp_path) == rules_at(8)


def test_file_that_could_not_be_synced_is_not_trusted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = kept(tmp_path, 5)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            files.append(step(5, 6))
    keep(files, 5, 7)
    assert newest(tmp_path) == rules_at(7)
    assert (tmp_path / "lkg-000000000007.json").exists()


def test_lock_that_is_never_let_go_is_an_error_and_not_a_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.snapshot import lastgood_folder

    kept(tmp_path, 5)
    monkeypatch.setattr(lastgood_folder, "LOCK_SECONDS", 0.02)
    with lastgood_folder.lock(tmp_path):
        with pytest.raises(TimeoutError, match=r"lkg\.lock"):
            LastGood(tmp_path).append(step(5, 6))
        assert newest(tmp_path) == rules_at(5)


# ── any damage at all ────────────────────────────────────────────────────────────────────────────────────────────

Damage = tuple[str, Callable[[bytes], bytes], int]


@pytest.fixture(scope="module")
def generations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three generations with their logs, up to revision 24."""
    folder = tmp_path_factory.mktemp("generations") / "rules"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generation, "_MOST_LINES", 5)
        kept(folder, 24)
    assert len(bases(folder)) == 3
    return folder


def _revisions(log: Path) -> Sequence[tuple[int, int]]:
    """Return of each line of a log where it ends, and the revision that it leads to."""
    ends, end = [], 0
    first = int(log.stem.removeprefix("lkg-"))
    for count, line in enumerate(log.read_bytes().splitlines(keepends=True), start=1):
        end += len(line)
        ends.append((end, first + count))
    return ends


def _readable(folder: Path, damaged: dict[str, int]) -> int | None:
    """Return the newest revision that damage from these places on leaves, by the rules of the format."""
    for base in bases(folder):
        if base.name not in damaged:
            log = log_path(base)
            intact = [number for end, number in _revisions(log) if end <= damaged.get(log.name, end)]
            return max(intact, default=int(base.stem.removeprefix("lkg-")))
    return None


_places = st.tuples(st.integers(0, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 255))


@settings(max_examples=150, deadline=None)
@given(st.lists(_places, min_size=1, max_size=4, unique_by=lambda place: place[0]))
def test_damage_never_makes_other_rules_and_costs_no_more_than_it_must(
    generations: Path, places: list[tuple[int, float, int]]
) -> None:
    """Each place is a file, where in it, and the bits that are flipped there; none: it ends there."""
    names = [name for base in bases(generations) for name in (base.name, log_path(base).name)]
    damaged: dict[str, int] = {}
    copy = generations.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(generations, copy)
    for number, where, flip in places:
        content = (generations / names[number]).read_bytes()
        place = int(where * len(content))
        end = content[place + 1 :] if flip else b""
        (copy / names[number]).write_bytes(content[:place] + (bytes([content[place] ^ flip]) if flip else b"") + end)
        damaged[names[number]] = place
    expected = _readable(generations, damaged)
    with structlog.testing.capture_logs() as lines:
        found = LastGood(copy).newest()
    assert found == (rules_at(expected) if expected is not None else None)
    if expected != 24:
        cut = any(name.endswith(".log") and not flip for name, flip in ((names[n], f) for n, _, f in places))
        assert lines or cut, "rules that were there are refused without a word"
