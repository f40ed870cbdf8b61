"""Records as lines of an export: every column, typed, and a beginning and an end that tell whether it is whole."""

import base64
import json
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.evidence.exporting import COLUMNS, ending, heading, lines_of, row_of, text_of
from gateway.ports import Kept
from gateway.record import Attempt
from routing import Capture
from tests.records import DAY, NOON_NS, ChainedJournal, control_record, new_record, shadow_of


def kept(record: Any, erasure: str | None = None, **bodies: Any) -> Kept:
    frame = ChainedJournal().frame(record, **bodies)
    if erasure is not None:
        frame = replace(frame, request=b"", response=b"")
    return Kept(frame, DAY, erasure)


def line(record: Any, **more: Any) -> dict[str, Any]:
    """Return a record as a reader of the export has it."""
    [written] = lines_of([kept(record, **more)])
    assert written.endswith(b"\n")
    read: dict[str, Any] = json.loads(written)
    return read


TYPES: dict[str, Any] = {"text": str, "whole": int, "truth": bool, "time": str, "day": str}
PRIMARY = new_record(1, headers={"x-tenant": "acme"}, oip_id="é", total_us=1_000, trace_id="ab" * 16)


@pytest.mark.parametrize(
    "record", [PRIMARY, shadow_of(PRIMARY, 1), control_record(3, "audit.erase", details={"count": 2, "unit": "ab"})]
)
def test_a_record_has_a_value_of_its_type_or_nothing_in_every_column(record: Any) -> None:
    row = line(record)
    assert list(row) == [column.name for column in COLUMNS]
    for column in COLUMNS:
        if column.type != "json":
            assert row[column.name] is None or type(row[column.name]) is TYPES[column.type], column.name


def test_times_places_and_decisions_are_told() -> None:
    row = line(PRIMARY)
    assert row["received_ns"] == NOON_NS + 1_000_000
    assert row["received"] == "2026-11-25T12:00:00.001000Z"
    assert datetime.fromisoformat(row["received"]).timestamp() == row["received_ns"] / 1e9
    assert date.fromisoformat(row["day"]).isoformat() == DAY
    assert (row["journal"], row["sequence"], len(row["chain"])) == ("gw-a/w0.0123456789ab", 1, 64)
    assert (row["model"], row["intended"], row["served"], row["reason"], row["rule"]) == (
        "fraud",
        "1",
        "1",
        "split",
        "split",
    )
    assert (row["revision"], row["unit"], row["keyed"], row["headers"]) == (4, f"{1:032x}", True, {"x-tenant": "acme"})
    assert row["attempts"] == [{"version": "1", "backend": "onnx", "infer_us": 7, "status": 200, "error": None}]
    assert (row["gateway"], row["worker"], row["client"], row["total_us"]) == ("gw-a", "w0", "127.0.0.1", 1_000)


def test_bodies_are_text_or_base64_with_their_digest() -> None:
    row = line(PRIMARY, request="é\n".encode(), response=b"\xff\x00")
    assert (row["request_body"], row["request_encoding"], row["request_size"]) == ("é\n", "utf-8", 3)
    assert (row["response_body"], row["response_encoding"]) == (base64.b64encode(b"\xff\x00").decode(), "base64")
    assert len(row["response_sha256"]) == len(row["response_commitment"]) == 64


def test_a_body_that_is_cut_redacted_digested_or_erased_is_told_from_one_that_is_empty() -> None:
    cut = line(PRIMARY, request=b"abcdef", policy=Capture(max_bytes=2))
    assert (cut["request_body"], cut["request_truncated"], cut["request_size"]) == ("ab", True, 6)
    hidden = line(PRIMARY, request=b'{"a": 1}', policy=Capture(redact=("/a",)))
    assert (hidden["request_body"], hidden["request_redacted"]) == ('{"a":"[redacted]"}', True)
    digest = line(PRIMARY, request=b"abc", policy=Capture(request="digest"))
    assert (digest["request_body"], digest["request_encoding"]) == (None, None)
    assert digest["request_sha256"].startswith("ba7816bf8f01cfea")
    empty = line(PRIMARY, request=b"")
    assert (empty["request_body"], empty["request_encoding"], empty["request_size"]) == ("", "utf-8", 0)
    erased = line(PRIMARY, erasure="01a2-erasure")
    assert (erased["erasure"], erased["request_body"], erased["request_sha256"]) == ("01a2-erasure", None, None)


def test_a_control_record_says_who_did_what_to_what() -> None:
    row = line(control_record(1, "audit.erase", comment="asked by the caller", details={"count": 2}))
    assert (row["role"], row["action"], row["actor"], row["comment"], row["details"]) == (
        "control",
        "audit.erase",
        "auditor",
        "asked by the caller",
        {"count": 2},
    )
    assert (row["model"], row["reason"], row["unit"]) == (None, None, None)


def test_every_try_is_told() -> None:
    tries = (Attempt("1", "http://127.0.0.1:9", 5, None, "backend_unreachable"), Attempt("2", "onnx", 7, 200))
    assert [one["error"] for one in line(new_record(1, attempts=tries))["attempts"]] == ["backend_unreachable", None]


def test_the_beginning_says_what_it_is_and_the_end_how_much_it_was() -> None:
    first, last = json.loads(heading(12, {"model": "fraud"})), json.loads(ending(11))
    assert (first["export"]["format"], first["export"]["records"], first["export"]["model"]) == (1, 12, "fraud")
    assert [one["name"] for one in first["export"]["columns"]] == list(row_of(kept(PRIMARY)))
    assert {one["type"] for one in first["export"]["columns"]} == {*TYPES, "json"}
    assert last == {"end": {"records": 11}}


@given(st.binary(max_size=50))
def test_a_body_comes_back_from_its_text(body: bytes) -> None:
    text, encoding = text_of(body)
    assert (text.encode() if encoding == "utf-8" else base64.b64decode(text)) == body
