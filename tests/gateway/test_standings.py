"""What a worker tells of its backends: in a file, by version, counted on through a restart."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from gateway.standings import Standing, Standings, read_standings, standings_path
from tests.conftest import until


def test_a_change_is_in_the_file_a_moment_later(tmp_path: Path) -> None:
    path = standings_path(tmp_path, 0)

    async def test() -> None:
        standings = Standings(path)
        assert read_standings(path) == []
        standings.of("fraud", "2").ejected += 1
        standings.of("fraud", "2").ejections += 1
        standings.changed()
        standings.of("other", "1").unhealthy += 1
        standings.changed()
        await until(lambda: read_standings(path) != [])
        assert read_standings(path) == [Standing("fraud", "2", 1, 0, 1), Standing("other", "1", 0, 1, 0)]
        standings.close()

    asyncio.run(test())
    assert [file.name for file in tmp_path.iterdir()] == ["worker-0.standings"]


def test_what_is_not_written_yet_is_written_at_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        standings = Standings(tmp_path / "told")
        standings.of("fraud", "2").ejections = 3
        standings.changed()
        standings.close()

    asyncio.run(test())
    assert read_standings(tmp_path / "told") == [Standing("fraud", "2", 0, 0, 3)]


def test_the_next_worker_counts_on_and_leaves_nobody_out(tmp_path: Path) -> None:
    async def test() -> None:
        first = Standings(tmp_path / "told")
        first.of("fraud", "2").ejected = first.of("fraud", "2").ejections = 2
        first.changed()
        first.close()
        Standings(tmp_path / "told").close()

    asyncio.run(test())
    assert read_standings(tmp_path / "told") == [Standing("fraud", "2", 0, 0, 2)]


def test_a_file_that_is_no_standings_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "told").write_bytes(b'[{"model": 1}')
    assert read_standings(tmp_path / "told") == []
    assert read_standings(tmp_path / "absent") == []
    Standings(tmp_path / "told")
    assert read_standings(tmp_path / "told") == []


def test_a_folder_that_takes_no_file_is_a_warning_and_no_failure(tmp_path: Path) -> None:
    with capture_logs() as logs:
        Standings(tmp_path / "absent" / "told")
    assert [(line["event"], line["log_level"]) for line in logs] == [("standings_not_written", "warning")]
