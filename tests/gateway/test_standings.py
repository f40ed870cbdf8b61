"""What a worker tells of its backends: in a file, by version, counted on through a restart."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from gateway.standings import Limited, Standing, Standings, Told, read_told, standings_path
from tests.conftest import until


def test_a_change_is_in_the_file_a_moment_later(tmp_path: Path) -> None:
    path = standings_path(tmp_path, 0)

    async def test() -> None:
        standings = Standings(path)
        assert read_told(path).backends == []
        standings.of("fraud", "2").ejected += 1
        standings.of("fraud", "2").ejections += 1
        standings.changed()
        standings.of("other", "1").unhealthy += 1
        standings.changed()
        await until(lambda: read_told(path).backends != [])
        assert read_told(path).backends == [Standing("fraud", "2", 1, 0, 1), Standing("other", "1", 0, 1, 0)]
        standings.close()

    asyncio.run(test())
    assert [file.name for file in tmp_path.iterdir()] == ["worker-0.standings"]


def test_limits_are_told_beside_backends_and_end_with_their_worker(tmp_path: Path) -> None:
    async def test() -> None:
        first = Standings(tmp_path / "told")
        first.of("fraud", "2").ejections = 1
        first.limit({("fraud", "2"): 8, ("other", "1"): 2})
        first.close()
        told = read_told(tmp_path / "told")
        assert told.backends == [Standing("fraud", "2", 0, 0, 1)]
        assert told.limits == [Limited("fraud", "2", 8), Limited("other", "1", 2)]
        Standings(tmp_path / "told").close()

    asyncio.run(test())
    assert read_told(tmp_path / "told") == Told([Standing("fraud", "2", 0, 0, 1)], [])


def test_what_is_not_written_yet_is_written_at_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        standings = Standings(tmp_path / "told")
        standings.of("fraud", "2").ejections = 3
        standings.changed()
        standings.close()

    asyncio.run(test())
    assert read_told(tmp_path / "told").backends == [Standing("fraud", "2", 0, 0, 3)]


def test_the_next_worker_counts_on_and_leaves_nobody_out(tmp_path: Path) -> None:
    async def test() -> None:
        first = Standings(tmp_path / "told")
        first.of("fraud", "2").ejected = first.of("fraud", "2").ejections = 2
        first.changed()
        first.close()
        Standings(tmp_path / "told").close()

    asyncio.run(test())
    assert read_told(tmp_path / "told").backends == [Standing("fraud", "2", 0, 0, 2)]


def test_a_file_that_is_no_standings_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "told").write_bytes(b'[{"model": 1}')
    assert read_told(tmp_path / "told").backends == []
    assert read_told(tmp_path / "absent").backends == []
    Standings(tmp_path / "told")
    assert read_told(tmp_path / "told").backends == []


def test_a_folder_that_takes_no_file_is_a_warning_and_no_failure(tmp_path: Path) -> None:
    with capture_logs() as logs:
        Standings(tmp_path / "absent" / "told")
    assert [(line["event"], line["log_level"]) for line in logs] == [("standings_not_written", "warning")]
