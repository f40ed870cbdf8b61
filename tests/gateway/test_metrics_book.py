"""The Prometheus book: which record counts where, what boards and recorder add, and that no caller invents a label."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway import __version__
from gateway.book import BUCKETS, Book
from gateway.metrics import METRICS, Board, Lag, Sealing, Slot
from gateway.record import Attempt, Frame, Payload, Record
from gateway.standings import Standing, Told, standings_path


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.close()


class FixedLag:
    """Tells the lag that it was given."""

    def __init__(self, lag: Lag) -> None:
        self._lag = lag

    def lag(self) -> Lag:
        return self._lag


def _frame(**fields: object) -> Frame:
    given: dict[str, object] = {
        "record_id": "r-1",
        "request_id": "q-1",
        "role": "primary",
        "received_ns": 1,
        "model": "fraud",
        "protocol": "oip-v2",
        "outcome": "served",
        "status": 200,
        "request": Payload(0),
        "response": Payload(0),
        "intended": "1",
        "served": "1",
        "attempts": (Attempt("1", "onnx", 400, 200),),
        "total_us": 2_000,
    }
    record = Record(**(given | fields))  # type: ignore[arg-type]
    return Frame("g/w0.0123456789ab", 1, b"", b"", b"", b"", b"", record)


def _observe(book: Book, **fields: object) -> None:
    book.observe([_frame(**fields)])


def _samples(book: Book) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(book.render().decode()) for sample in family.samples]


def _values(book: Book, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one figure by label values in the order of the table."""
    labels = METRICS[name.removesuffix("_count").removesuffix("_sum")].labels
    return {tuple(s.labels[label] for label in labels): s.value for s in _samples(book) if s.name == name}


def _board(folder: Path, worker: int = 0) -> Board:
    return Board(folder / f"worker-{worker}.board")


def test_a_served_request_counts_under_the_version_that_served(book: Book) -> None:
    _observe(book)
    _observe(book, served="2", total_us=4_000)
    assert _values(book, "pointsman_requests_total") == {("fraud", "1", "served"): 1, ("fraud", "2", "served"): 1}
    assert _values(book, "pointsman_request_latency_seconds_sum") == {("fraud", "1"): 0.002, ("fraud", "2"): 0.004}
    assert _values(book, "pointsman_errors_total") == {}
    assert _values(book, "pointsman_stale_requests_total") == {}


def test_latencies_fall_into_their_buckets(book: Book) -> None:
    for total_us in (500, 501, 1_500_000, 60_000_000):
        _observe(book, total_us=total_us)
    counts = {s.labels["le"]: s.value for s in _samples(book) if s.name == "pointsman_request_latency_seconds_bucket"}
    assert (counts["0.0005"], counts["0.001"], counts["1.0"], counts["2.5"], counts["30.0"]) == (1, 2, 2, 3, 3)
    assert counts["+Inf"] == 4
    assert len(counts) == len(BUCKETS) + 1


def test_a_failure_counts_under_the_version_that_should_have_served(book: Book) -> None:
    failed = Attempt("1", "http://127.0.0.1:1", 900, None, "backend_unreachable")
    _observe(book, served=None, outcome="failed", error_code="backend_unreachable", attempts=(failed,))
    assert _values(book, "pointsman_requests_total") == {("fraud", "1", "failed"): 1}
    assert _values(book, "pointsman_errors_total") == {("fraud", "1", "backend_unreachable"): 1}
    assert _values(book, "pointsman_backend_latency_seconds_count") == {("fraud", "1", "http://127.0.0.1:1"): 1}


def test_a_fallback_counts_under_both_versions_and_every_try_under_its_own(book: Book) -> None:
    tries = (Attempt("2", "http://127.0.0.1:1", 900, None, "backend_unreachable"), Attempt("1", "onnx", 100, 200))
    _observe(book, intended="2", attempts=tries)
    assert _values(book, "pointsman_fallbacks_total") == {("fraud", "2", "1"): 1}
    assert _values(book, "pointsman_backend_latency_seconds_sum") == {
        ("fraud", "2", "http://127.0.0.1:1"): 0.0009,
        ("fraud", "1", "onnx"): 0.0001,
    }


def test_a_diversion_by_the_brake_counts_for_the_version_that_was_tried_instead(book: Book) -> None:
    _observe(book, intended="2", reason="brake")
    failed = (Attempt("1", "onnx", 9, None, "model_failed"),)
    _observe(book, intended="2", reason="brake", served=None, outcome="failed", attempts=failed)
    assert _values(book, "pointsman_diversions_total") == {("fraud", "2", "1"): 2}
    assert _values(book, "pointsman_requests_total") == {("fraud", "1", "served"): 1, ("fraud", "1", "failed"): 1}
    assert _values(book, "pointsman_fallbacks_total") == {}


def test_a_fallback_after_a_diversion_counts_from_the_version_that_was_tried_instead(book: Book) -> None:
    tries = (Attempt("3", "onnx", 900, None, "model_failed"), Attempt("1", "onnx", 100, 200))
    _observe(book, intended="2", reason="brake", attempts=tries)
    assert _values(book, "pointsman_diversions_total") == {("fraud", "2", "3"): 1}
    assert _values(book, "pointsman_fallbacks_total") == {("fraud", "3", "1"): 1}


def test_a_try_that_was_not_made_has_no_latency(book: Book) -> None:
    tries = (Attempt("2", "", 0, None, "overloaded"), Attempt("1", "onnx", 100, 200))
    _observe(book, intended="2", attempts=tries)
    assert _values(book, "pointsman_backend_latency_seconds_count") == {("fraud", "1", "onnx"): 1}


def test_a_refusal_before_any_decision_has_no_version(book: Book) -> None:
    _observe(book, served=None, intended=None, outcome="refused", error_code="malformed_body", attempts=())
    assert _values(book, "pointsman_requests_total") == {("fraud", "_none", "refused"): 1}
    assert _values(book, "pointsman_errors_total") == {("fraud", "_none", "malformed_body"): 1}


@pytest.mark.parametrize("code", ["unknown_version", "version_not_allowed"])
@pytest.mark.parametrize("intended", [None, "made-up"])
def test_a_version_that_does_not_exist_is_no_label(book: Book, code: str, intended: str | None) -> None:
    _observe(
        book, served=None, intended=intended, asked_version="made-up", outcome="refused", error_code=code, attempts=()
    )
    assert b"made-up" not in book.render()
    assert _values(book, "pointsman_requests_total") == {("fraud", "_none", "refused"): 1}


def test_unknown_models_collapse_to_one_value(book: Book) -> None:
    for number in range(50):
        _observe(
            book,
            model=f"made-up-{number}",
            known_model=False,
            served=None,
            intended=None,
            outcome="refused",
            error_code="unknown_model",
            attempts=(),
            stale=True,
        )
    assert b"made-up" not in book.render()
    assert _values(book, "pointsman_requests_total") == {("_unknown", "_none", "refused"): 50}
    assert _values(book, "pointsman_stale_requests_total") == {("_unknown",): 50}


def test_a_shadow_counts_among_shadows_only(book: Book) -> None:
    _observe(book, role="shadow", served="3", intended="3", primary_id="r-0", stale=True)
    _observe(book, role="shadow", served=None, intended="3", outcome="failed", error_code="model_failed", attempts=())
    assert _values(book, "pointsman_shadow_requests_total") == {
        ("fraud", "3", "served"): 1,
        ("fraud", "3", "failed"): 1,
    }
    assert _values(book, "pointsman_shadow_latency_seconds_count") == {("fraud", "3"): 2}
    for name in METRICS:
        if "shadow" not in name and METRICS[name].kind != "gauge":
            assert _values(book, name) == {}, name


def test_stale_requests_are_counted_by_model(book: Book) -> None:
    _observe(book, stale=True)
    assert _values(book, "pointsman_stale_requests_total") == {("fraud",): 1}


def test_requests_and_latencies_agree_in_every_answer_while_counting_goes_on(book: Book) -> None:
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            _observe(book)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        answers = [_samples(book) for _ in range(50)]
    finally:
        done.set()
        counting.join()
    for answer in answers:
        figures = {s.name: s.value for s in answer if s.labels.get("le", "+Inf") == "+Inf"}
        if "pointsman_requests_total" in figures:
            assert figures["pointsman_requests_total"] == figures["pointsman_request_latency_seconds_count"]
            assert figures["pointsman_requests_total"] == figures["pointsman_backend_latency_seconds_bucket"]


def test_the_board_of_a_living_worker_is_shown(book: Book, tmp_path: Path) -> None:
    board = _board(tmp_path)
    board.begin()
    now = time.time_ns()
    for slot, value in {
        Slot.READY: 1,
        Slot.IN_FLIGHT: 7,
        Slot.SHADOWS_IN_FLIGHT: 2,
        Slot.RULES_REVISION: 41,
        Slot.RULES_CHECKED_NS: now - 5_000_000_000,
        Slot.RULES_ALARM: 1,
        Slot.VERSIONS_LOADED: 3,
        Slot.SHADOW_DROPPED_BODY_SIZE: 4,
        Slot.SHED: 9,
        Slot.CONNECTIONS_REFUSED: 8,
        Slot.CONNECTIONS: 12,
        Slot.LOOP_LAG_US: 1_500,
        Slot.LIMITS_IN_FORCE: 2,
        Slot.VERSIONS_BRAKED: 1,
    }.items():
        board[slot] = value
    worker = ("worker-0",)
    assert _values(book, "pointsman_worker_ready") == {worker: 1}
    assert _values(book, "pointsman_in_flight_requests") == {worker: 7}
    assert _values(book, "pointsman_shadows_in_flight") == {worker: 2}
    assert _values(book, "pointsman_rules_revision") == {worker: 41}
    assert _values(book, "pointsman_rules_alarm") == {worker: 1}
    assert _values(book, "pointsman_versions_loaded") == {worker: 3}
    assert _values(book, "pointsman_shed_requests_total") == {worker: 9}
    assert _values(book, "pointsman_connections_refused_total") == {worker: 8}
    assert _values(book, "pointsman_open_connections") == {worker: 12}
    assert _values(book, "pointsman_loop_lag_seconds") == {worker: 0.0015}
    assert _values(book, "pointsman_versions_limited") == {worker: 2}
    assert _values(book, "pointsman_versions_braked") == {worker: 1}
    assert 5 <= _values(book, "pointsman_rules_age_seconds")[worker] < 60
    dropped = _values(book, "pointsman_shadow_dropped_total")
    assert dropped == {
        ("worker-0", "in_flight"): 0,
        ("worker-0", "body_size"): 4,
        ("worker-0", "not_ready"): 0,
        ("worker-0", "stopping"): 0,
        ("worker-0", "overload"): 0,
    }
    board[Slot.IN_FLIGHT] = 6
    assert _values(book, "pointsman_in_flight_requests") == {worker: 6}
    board.close()


def test_rules_that_were_never_checked_have_no_age(book: Book, tmp_path: Path) -> None:
    board = _board(tmp_path)
    board.begin()
    assert _values(book, "pointsman_rules_age_seconds") == {}
    board.close()


def test_of_a_worker_that_was_killed_counters_stay_and_gauges_do_not(book: Book, tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; from gateway.metrics import Board, Slot;"
        "b = Board(Path(sys.argv[1])); b.begin();"
        "b[Slot.READY] = 1; b[Slot.IN_FLIGHT] = 7; b[Slot.RULES_REVISION] = 41; b.add(Slot.SHADOW_DROPPED_STOPPING, 3);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "worker-0.board")], check=False, timeout=60)
    assert killed.returncode == -9
    assert _values(book, "pointsman_worker_ready") == {("worker-0",): 0}
    assert _values(book, "pointsman_in_flight_requests") == {("worker-0",): 0}
    assert _values(book, "pointsman_rules_revision") == {}
    assert _values(book, "pointsman_shadow_dropped_total")[("worker-0", "stopping")] == 3
    successor = _board(tmp_path)
    successor.begin()
    assert _values(book, "pointsman_rules_revision") == {("worker-0",): 0}
    assert _values(book, "pointsman_shadow_dropped_total")[("worker-0", "stopping")] == 3
    successor.close()


def test_boards_are_taken_up_and_let_go_as_their_files_come_and_go(book: Book, tmp_path: Path) -> None:
    assert _values(book, "pointsman_worker_ready") == {}
    boards = [_board(tmp_path, worker) for worker in (0, 1)]
    assert set(_values(book, "pointsman_worker_ready")) == {("worker-0",), ("worker-1",)}
    (tmp_path / "worker-1.board").unlink()
    (tmp_path / "worker-0.board").unlink()
    boards.append(_board(tmp_path, 0))
    boards[-1].begin()
    boards[-1][Slot.READY] = 1
    assert _values(book, "pointsman_worker_ready") == {("worker-0",): 1}
    for board in boards:
        board.close()


def test_the_lag_of_the_recorder_is_shown_and_an_unknown_number_is_left_out(book: Book) -> None:
    assert _values(book, "pointsman_journal_lag_bytes") == {}
    book.watch(FixedLag(Lag(records=3, bytes=4_000, seconds=1.5, corrupt_frames=2)))
    assert _values(book, "pointsman_journal_lag_records") == {(): 3}
    assert _values(book, "pointsman_journal_lag_bytes") == {(): 4_000}
    assert _values(book, "pointsman_journal_lag_seconds") == {(): 1.5}
    assert _values(book, "pointsman_journal_corrupt_frames_total") == {(): 2}
    book.watch(FixedLag(Lag(records=None, bytes=4_000, seconds=1.5, corrupt_frames=2)))
    assert _values(book, "pointsman_journal_lag_records") == {}


def test_the_age_of_the_newest_checkpoint_is_shown_once_there_is_one(book: Book) -> None:
    last = [0]
    book.watch(FixedLag(Lag(records=0, bytes=0, seconds=0.0, corrupt_frames=0)), lambda: Sealing(last[0], 2))
    assert _values(book, "pointsman_checkpoint_age_seconds") == {}
    assert _values(book, "pointsman_checkpoints_unpublished") == {(): 2}
    last[0] = time.time_ns() - 7 * 10**9
    assert 7 <= _values(book, "pointsman_checkpoint_age_seconds")[()] < 60


def test_what_was_done_is_counted_by_action_and_among_nothing_else(book: Book) -> None:
    for action in ("audit.erase", "audit.lookup", "audit.lookup"):
        _observe(book, role="control", action=action, stale=True, error_code="x")
    assert _values(book, "pointsman_control_records_total") == {("audit.erase",): 1, ("audit.lookup",): 2}
    for name in METRICS:
        if "control" not in name and METRICS[name].kind != "gauge":
            assert _values(book, name) == {}, name


def test_losses_and_refusals_are_shown_by_worker_and_outlive_it(book: Book, tmp_path: Path) -> None:
    board = _board(tmp_path)
    board.begin()
    board.add(Slot.RECORDS_LOST, 4)
    board.add(Slot.LOSSES_RECORDED, 3)
    board.add(Slot.REFUSED_UNRECORDED, 2)
    board[Slot.DISK_USED_PERCENT] = 81
    worker = ("worker-0",)
    assert _values(book, "pointsman_disk_used_percent") == {worker: 81}
    board[Slot.PID] = 0
    assert _values(book, "pointsman_records_lost_total") == {worker: 4}
    assert _values(book, "pointsman_unrecorded_refusals_total") == {worker: 2}
    assert _values(book, "pointsman_disk_used_percent") == {}
    board.begin()
    assert _values(book, "pointsman_records_lost_total") == {worker: 4}
    board.close()


def test_tries_made_again_on_the_same_version_count_and_a_fallback_does_not(book: Book) -> None:
    first, again = Attempt("1", "http://a", 400, error="backend_unreachable"), Attempt("1", "http://b", 400, 503)
    _observe(book, served="2", attempts=(first, again, again, Attempt("2", "http://c", 400, 200)))
    assert _values(book, "pointsman_retries_total") == {("fraud", "1"): 2}


def test_backends_in_trouble_are_told_by_version_and_of_a_dead_worker_only_what_counts_on(
    book: Book, tmp_path: Path
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for worker, pid in ((0, os.getpid()), (1, gone.pid)):
        board = _board(tmp_path, worker)
        board.begin()
        board[Slot.PID] = pid
        board[Slot.RETRIES_REFUSED] = 7
        board.close()
        told = Told([Standing("fraud", "1", ejected=1, unhealthy=2, ejections=3 + worker)])
        standings_path(tmp_path, worker).write_bytes(msgspec.json.encode(told))
    _board(tmp_path, 2).close()
    label = ("worker-0", "fraud", "1")
    assert _values(book, "pointsman_backends_ejected") == {label: 1}
    assert _values(book, "pointsman_backends_unhealthy") == {label: 2}
    assert _values(book, "pointsman_backend_ejections_total") == {label: 3, ("worker-1", "fraud", "1"): 4}
    assert _values(book, "pointsman_retries_refused_total") == {("worker-0",): 7, ("worker-1",): 7, ("worker-2",): 0}


def test_the_build_is_told(book: Book) -> None:
    [build] = [sample for sample in _samples(book) if sample.name == "pointsman_build_info"]
    assert build.labels["version"] == __version__
    assert build.value == 1


def test_every_figure_of_the_table_is_rendered_with_its_kind_its_help_and_its_labels(
    book: Book, tmp_path: Path
) -> None:
    board = _board(tmp_path)
    board.begin()
    board[Slot.RULES_CHECKED_NS] = time.time_ns()
    book.watch(FixedLag(Lag(records=0, bytes=0, seconds=0.0, corrupt_frames=0)), lambda: Sealing(time.time_ns(), 0))
    _observe(book, role="control", action="audit.erase")
    _observe(book, intended="2", stale=True, error_code="model_failed")
    _observe(book, attempts=(Attempt("1", "http://a", 400, error="backend_unreachable"),) * 2)
    _observe(book, intended="2", reason="brake")
    _observe(book, role="shadow")
    standings_path(tmp_path, 0).write_bytes(msgspec.json.encode(Told([Standing("fraud", "1", ejections=1)])))
    text = book.render().decode()
    rendered = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(rendered) == {name.removesuffix("_total") for name in METRICS}
    for name, metric in METRICS.items():
        family = rendered[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert {tuple(sorted(set(s.labels) - {"le"})) for s in family.samples} == {tuple(sorted(metric.labels))}, name
    assert "_created" not in text
    board.close()


def test_two_books_share_nothing(book: Book, tmp_path: Path) -> None:
    other = Book(tmp_path)
    _observe(other)
    assert _values(book, "pointsman_requests_total") == {}
    other.close()
