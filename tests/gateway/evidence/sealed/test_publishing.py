"""Sending checkpoints out: in order, each at least once, over failures and restarts, without holding anybody up."""

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep

import pytest

from gateway.evidence.publishing import CheckpointFile, CheckpointUrl, NotSent, Publisher
from gateway.evidence.verification import verify
from gateway.ports import SignedCheckpoint
from tests.gateway.evidence.sealed.world import House, days_ago

TODAY, YESTERDAY = days_ago(0), days_ago(1)
DEADLINE_SECONDS = 20.0


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = monotonic() + DEADLINE_SECONDS
    while not condition():
        assert monotonic() < deadline, "it did not come to hold"
        sleep(0.005)


class Archive:
    """A real server that takes checkpoints, or answers an error while `failing`."""

    def __init__(self) -> None:
        self.failing = 0
        self.asked = 0
        self.bodies: list[bytes] = []
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                archive.asked += 1
                body = self.rfile.read(int(self.headers["content-length"]))
                if not archive.failing:
                    archive.bodies.append(body)
                self.send_response(archive.failing or 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://auditor:hunter2@127.0.0.1:{self._server.server_port}/checkpoints?token=s3cret"

    @property
    def numbers(self) -> list[int]:
        return [json.loads(body)["number"] for body in self.bodies]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.close()


def sealed(house: House, chance: random.Random, day: str = TODAY) -> SignedCheckpoint:
    house.serve("w0", 1, chance, day)
    house.ship(day)
    house.seal()
    found = house.store.last_checkpoint("g")
    assert found is not None
    return found


def to_url(house: House, archive: Archive) -> Publisher:
    return Publisher(CheckpointUrl(archive.url), house.keys / "posted.json", house.store, "g", first_retry_seconds=0.01)


def test_a_file_gets_every_checkpoint_as_a_line_that_verification_takes(
    house: House, tmp_path: Path, chance: random.Random
) -> None:
    path = tmp_path / "checkpoints.jsonl"
    publisher = Publisher(CheckpointFile(path), house.keys / "appended.json", house.store, "g")
    first = sealed(house, chance)  # before it started: read from the store
    publisher.start()
    for _ in range(4):
        publisher.offer(sealed(house, chance))
    wait_for(lambda: not publisher.unpublished and path.exists() and path.read_bytes().count(b"\n") == 5)
    publisher.close()

    assert json.loads(path.read_bytes().splitlines()[0])["statement"] == first.statement.decode()
    assert verify(house.store, house.against(exported=path)).holds


def test_a_url_gets_them_in_order_once_it_answers_again(house: House, archive: Archive, chance: random.Random) -> None:
    publisher = to_url(house, archive)
    publisher.start()
    publisher.offer(sealed(house, chance))
    wait_for(lambda: archive.numbers == [1])
    archive.failing = 503
    for _ in range(3):
        publisher.offer(sealed(house, chance))
    asked = archive.asked
    wait_for(lambda: archive.asked > asked + 2)
    assert publisher.unpublished == 3
    archive.failing = 0
    wait_for(lambda: archive.numbers == [1, 2, 3, 4])
    publisher.close()

    assert publisher.unpublished == 0


def test_what_was_not_sent_before_a_restart_is_sent_after_it(
    house: House, archive: Archive, chance: random.Random
) -> None:
    publisher = to_url(house, archive)
    publisher.start()
    publisher.offer(sealed(house, chance, YESTERDAY))
    wait_for(lambda: archive.numbers == [1])
    publisher.close()
    for day in (YESTERDAY, TODAY, TODAY):
        sealed(house, chance, day)

    again = to_url(house, archive)
    again.start()
    again.offer(sealed(house, chance))
    wait_for(lambda: archive.numbers == [1, 2, 3, 4, 5])
    again.close()


def test_progress_that_cannot_be_read_sends_some_twice_and_skips_none(
    house: House, archive: Archive, chance: random.Random
) -> None:
    sealed(house, chance)
    sealed(house, chance)
    (house.keys / "posted.json").write_bytes(b"{")

    publisher = to_url(house, archive)
    publisher.start()
    wait_for(lambda: archive.numbers == [1, 2])
    publisher.close()


def test_more_than_are_kept_waiting_are_read_from_the_store(
    house: House, archive: Archive, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.evidence.publishing._KEPT_WAITING", 2)
    archive.failing = 500
    publisher = to_url(house, archive)
    publisher.start()
    for _ in range(7):
        publisher.offer(sealed(house, chance))
    archive.failing = 0

    wait_for(lambda: archive.numbers == [1, 2, 3, 4, 5, 6, 7])
    publisher.close()


def test_what_is_sealed_at_shutdown_is_sent_before_the_publisher_ends(
    house: House, archive: Archive, chance: random.Random
) -> None:
    publisher = to_url(house, archive)
    publisher.start()
    publisher.offer(sealed(house, chance))
    publisher.close()

    assert archive.numbers == [1]


def test_an_error_names_the_host_and_no_secret(house: House, archive: Archive, chance: random.Random) -> None:
    checkpoint = sealed(house, chance)
    archive.failing = 403
    with pytest.raises(NotSent, match=r"http://127.0.0.1:\d+ answers 403") as answered:
        CheckpointUrl(archive.url).send(checkpoint)
    archive.close()
    with pytest.raises(NotSent, match="does not take it") as unreachable:
        CheckpointUrl(archive.url).send(checkpoint)

    for error in (answered.value, unreachable.value):
        assert "hunter2" not in str(error)
        assert "s3cret" not in str(error)


def test_a_file_that_cannot_be_written_is_named_and_tried_again(
    house: House, tmp_path: Path, chance: random.Random
) -> None:
    folder = tmp_path / "mount"
    publisher = Publisher(
        CheckpointFile(folder / "c.jsonl"), house.keys / "f.json", house.store, "g", first_retry_seconds=0.01
    )
    checkpoint = sealed(house, chance)
    with pytest.raises(NotSent, match=r"c\.jsonl cannot be written: No such file"):
        CheckpointFile(folder / "c.jsonl").send(checkpoint)
    publisher.start()
    folder.mkdir()

    wait_for(lambda: (folder / "c.jsonl").exists() and (folder / "c.jsonl").read_bytes().endswith(b"\n"))
    publisher.close()


def test_a_line_that_a_crash_cut_short_is_written_again_below_it(
    house: House, tmp_path: Path, chance: random.Random
) -> None:
    path = tmp_path / "c.jsonl"
    destination = CheckpointFile(path)
    one, two = sealed(house, chance), sealed(house, chance)
    destination.send(one)
    whole = path.read_bytes()
    destination.send(two)
    path.write_bytes(path.read_bytes()[:-40])
    destination.send(two)

    assert path.read_bytes().startswith(whole)
    assert verify(house.store, house.against(exported=path)).holds
