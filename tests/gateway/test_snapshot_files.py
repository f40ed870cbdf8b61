"""The last good files: whole or not there, refused for a single wrong byte, three generations."""

import os
from pathlib import Path

import structlog

from gateway.ports import Head, StoredDocument
from gateway.snapshot.lastgood import LastGood, Saved, last_known_revision


def saved(revision: int, documents: int = 2) -> Saved:
    return Saved(
        Head("an epoch", revision),
        f"operation {revision}",
        {("route", f"model-{n}"): StoredDocument(n, f'{{"ü":"\\"{n}"}}'.encode()) for n in range(documents)},
    )


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    files = LastGood(tmp_path / "made" / "for it")
    assert files.newest() is None
    for kept in (saved(7), saved(8, documents=1201)):
        files.write(kept)
        assert files.newest() == kept
    assert (tmp_path / "made" / "for it" / "lkg-000000000007.json").stat().st_mode & 0o777 == 0o600


def test_newest_three_generations_are_kept(tmp_path: Path) -> None:
    files = LastGood(tmp_path)
    for revision in (9, 10, 11, 12, 1_000_000_000_000):
        files.write(saved(revision))
    names = ["lkg-000000000011.json", "lkg-000000000012.json", "lkg-1000000000000.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    newest = files.newest()
    assert newest is not None
    assert newest.head.revision == last_known_revision(tmp_path) == 1_000_000_000_000


def test_generation_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    LastGood(tmp_path).write(saved(7))
    before = (tmp_path / "lkg-000000000007.json").stat()
    LastGood(tmp_path).write(saved(7))
    after = (tmp_path / "lkg-000000000007.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_every_single_wrong_byte_is_found_and_the_generation_before_is_used(tmp_path: Path) -> None:
    files = LastGood(tmp_path)
    older = saved(6, documents=1)
    files.write(older)
    files.write(saved(7, documents=1))
    path = tmp_path / "lkg-000000000007.json"
    whole = path.read_bytes()
    with structlog.testing.capture_logs() as lines:
        for place in range(len(whole)):
            for flip in (0x01, 0x20, 0x80):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
                assert files.newest() == older, f"byte {place} of {whole!r} xor {flip}"
        for end in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:end])
            assert files.newest() == older
    assert {(line["event"], line["file"]) for line in lines} == {("last_good_refused", path.name)}
    assert len(lines) == 3 * len(whole) + 4


def test_file_under_the_name_of_another_revision_is_refused(tmp_path: Path) -> None:
    files = LastGood(tmp_path)
    files.write(saved(6))
    (tmp_path / "lkg-000000000006.json").rename(tmp_path / "lkg-000000000009.json")
    assert files.newest() is None


def test_unfinished_files_of_dead_processes_are_removed_and_others_left(tmp_path: Path) -> None:
    abandoned, fresh = tmp_path / "lkg-000000000001.17.tmp", tmp_path / "lkg-000000000002.18.tmp"
    for path in (abandoned, fresh):
        path.write_bytes(b"{")
    os.utime(abandoned, (1, 1))
    LastGood(tmp_path).write(saved(7))
    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, "lkg-000000000007.json"]


def test_last_known_revision_is_zero_when_there_never_were_rules(tmp_path: Path) -> None:
    assert last_known_revision(tmp_path / "nothing here") == 0
