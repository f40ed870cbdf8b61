"""Counting in batches: the figures are those of the reference library, however the records are cut into batches."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from gateway.book import BUCKETS, NO_VERSION, UNKNOWN_MODEL, Book
from gateway.metrics import METRICS
from gateway.record import Attempt, Frame, Record
from tests.journals import made

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]
REQUESTS, LATENCY = "pointsman_requests_total", "pointsman_request_latency_seconds"
BACKENDS, ERRORS = "pointsman_backend_latency_seconds", "pointsman_errors_total"
FALLBACKS, STALE = "pointsman_fallbacks_total", "pointsman_stale_requests_total"
RETRIES, DIVERSIONS = "pointsman_retries_total", "pointsman_diversions_total"
SHADOWS, SHADOW_LATENCY = "pointsman_shadow_requests_total", "pointsman_shadow_latency_seconds"
ACTIONS = "pointsman_control_records_total"
TIMES = st.integers(0, 40_000_000) | st.sampled_from([round(bound * 1e6) + off for bound in BUCKETS for off in (0, 1)])
VERSIONS = st.sampled_from(["1", "2"])
ATTEMPTS = st.builds(Attempt, VERSIONS, st.sampled_from(["onnx", "http://127.0.0.1:1", ""]), TIMES)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "role": st.sampled_from(["primary", "primary", "shadow", "control"]),
    "model": st.sampled_from(["fraud", "spam"]),
    "outcome": st.sampled_from(["served", "failed", "refused"]),
    "intended": st.none() | VERSIONS,
    "served": st.none() | VERSIONS,
    "reason": st.sampled_from([None, "split", "brake"]),
    "known_model": st.booleans(),
    "error_code": st.sampled_from([None, "model_failed", "unknown_version", "version_not_allowed"]),
    "attempts": st.lists(ATTEMPTS, max_size=3).map(tuple),
    "stale": st.booleans(),
    "total_us": TIMES,
    "action": st.sampled_from([None, "audit.erase"]),
}
RECORDS = st.fixed_dictionaries(FIELDS).map(lambda fields: structs.replace(made(1)[0], **fields))
CHANGES = st.one_of([st.tuples(st.just(name), values) for name, values in FIELDS.items()])


def _varied(record: Record, changes: Sequence[tuple[str, object]]) -> list[Record]:
    return [record, *(structs.replace(record, **{name: value}) for name, value in changes)]


NEARLY_ALIKE = st.builds(_varied, RECORDS, st.lists(CHANGES, max_size=30))
"""Records that differ in one field each, as those of a batch nearly do."""


class Reference:
    """Counts one record after the other with the reference library's own counters and histograms."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counters = (REQUESTS, ERRORS, FALLBACKS, RETRIES, DIVERSIONS, STALE, SHADOWS, ACTIONS)
        self._counters = {name: Counter(name, "-", METRICS[name].labels, registry=self._registry) for name in counters}
        self._timed = {
            name: Histogram(name, "-", METRICS[name].labels, registry=self._registry, buckets=BUCKETS)
            for name in (LATENCY, BACKENDS, SHADOW_LATENCY)
        }

    def observe(self, record: Record) -> None:
        if record.role == "control":
            self._count(ACTIONS, record.action or "")
            return
        model = record.model if record.known_model else UNKNOWN_MODEL
        braked = record.reason == "brake" and record.attempts
        first = record.attempts[0].version if braked else record.intended
        version = record.served or first
        in_vain = record.served is None and record.error_code in {"unknown_version", "version_not_allowed"}
        if version is None or in_vain or not record.known_model:
            version = NO_VERSION
        shadow = record.role == "shadow"
        self._count(SHADOWS if shadow else REQUESTS, model, version, record.outcome)
        self._time(SHADOW_LATENCY if shadow else LATENCY, record.total_us, model, version)
        if shadow:
            return
        for number, attempt in enumerate(record.attempts):
            if attempt.backend:
                self._time(BACKENDS, attempt.infer_us, model, attempt.version, attempt.backend)
            if number and record.attempts[number - 1].version == attempt.version:
                self._count(RETRIES, model, attempt.version)
        if record.error_code is not None:
            self._count(ERRORS, model, version, record.error_code)
        if record.served and first and record.served != first:
            self._count(FALLBACKS, model, first, record.served)
        if record.intended and first and first != record.intended:
            self._count(DIVERSIONS, model, record.intended, first)
        if record.stale:
            self._count(STALE, model)

    def _count(self, name: str, *labels: str) -> None:
        self._counters[name].labels(*labels).inc()

    def _time(self, name: str, time_us: int, *labels: str) -> None:
        self._timed[name].labels(*labels).observe(time_us / 1e6)

    def figures(self) -> Figures:
        samples = (sample for family in self._registry.collect() for sample in family.samples)
        return {
            (one.name, frozenset(one.labels.items())): one.value for one in samples if not one.name.endswith("_created")
        }


def _frame(record: Record) -> Frame:
    return Frame("g/w0.0123456789ab", 1, b"", b"", b"", b"", b"", record)


def _figures(book: Book, like: Figures) -> Figures:
    names = {name for name, _ in like}
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(book.render().decode())
        for sample in family.samples
        if sample.name in names
    }


def _batches(records: Sequence[Record], cuts: Sequence[int]) -> Iterator[list[Frame]]:
    ends = sorted({min(cut, len(records)) for cut in cuts} | {0, len(records)})
    for start, end in pairwise(ends):
        yield [_frame(record) for record in records[start:end]]


@given(NEARLY_ALIKE | st.lists(RECORDS, max_size=10), st.lists(st.integers(0, 40), max_size=5))
def test_the_figures_are_those_of_the_reference_however_records_come_in_batches(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], cuts: list[int]
) -> None:
    folder: Path = tmp_path_factory.getbasetemp()
    book, one_by_one, reference = Book(folder), Book(folder), Reference()
    for batch in _batches(records, cuts):
        book.observe(batch)
    for record in records:
        one_by_one.observe([_frame(record)])
        reference.observe(record)
    assert book.render() == one_by_one.render()
    expected = reference.figures()
    assert _figures(book, expected) == pytest.approx(expected)


ONE = structs.replace(made(1)[0], intended="1", served="1", total_us=700, attempts=(Attempt("1", "onnx", 600),))
BRAKED = structs.replace(ONE, reason="brake", served=None)


@pytest.mark.parametrize(
    ("record", "name", "value"),
    [
        (ONE, "role", "shadow"),
        (ONE, "role", "control"),
        (ONE, "model", "spam"),
        (ONE, "known_model", False),
        (ONE, "outcome", "failed"),
        (ONE, "served", "2"),
        (ONE, "served", None),
        (ONE, "intended", "2"),
        (ONE, "error_code", "model_failed"),
        (ONE, "stale", True),
        (ONE, "attempts", (Attempt("1", "onnx", 600),) * 2),
        (ONE, "total_us", 7_000_000),
        (BRAKED, "attempts", (Attempt("2", "onnx", 600),)),
        (BRAKED, "intended", "2"),
        (structs.replace(ONE, role="control"), "action", "audit.erase"),
    ],
)
def test_records_of_one_batch_that_differ_in_one_field_are_counted_apart(
    tmp_path: Path, record: Record, name: str, value: object
) -> None:
    book, reference = Book(tmp_path), Reference()
    records = [record, structs.replace(record, **{name: value}), record]
    book.observe([_frame(one) for one in records])
    for one in records:
        reference.observe(one)
    expected = reference.figures()
    assert _figures(book, expected) == pytest.approx(expected)


def test_a_batch_that_cannot_be_counted_counts_nothing(tmp_path: Path) -> None:
    book = Book(tmp_path)
    empty = book.render()
    good = made(1)[0]
    with pytest.raises(TypeError):
        book.observe([_frame(good), _frame(structs.replace(good, attempts=None))])
    assert book.render() == empty
