"""Records as bytes: what is written is read again, whatever the request looked like."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.record import Attempt, Payload, Record, decode_record, encode_record


def _record(**fields: object) -> Record:
    given: dict[str, object] = {
        "record_id": "r-1",
        "request_id": "q-1",
        "role": "primary",
        "received_ns": 1_800_000_000_000_000_000,
        "model": "fraud",
        "protocol": "oip-v2",
        "outcome": "served",
        "status": 200,
        "request": Payload(2, bytes(range(32)), kept=True),
        "response": Payload(2, bytes(32)),
    }
    return Record(**(given | fields))  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written_when_every_field_is_filled() -> None:
    record = _record(
        oip_id="ö-17",
        primary_id="r-0",
        asked_version="2",
        intended="2",
        served="1",
        digest="c" * 64,
        revision=3,
        cohort_revision=2,
        rules_revision=9,
        reason="pin",
        rule="pins[0]",
        cohort="beta",
        unit="d" * 32,
        keyed=True,
        headers={"x-tenant": "acme"},
        known_model=False,
        error_code="model_failed",
        error="it failed",
        attempts=(Attempt("2", "onnx", 7, 500, "model_failed"), Attempt("1", "http://127.0.0.1:1", 9, 200)),
        route_us=1,
        queue_us=2,
        infer_us=3,
        total_us=4,
        client="127.0.0.1",
        gateway="g",
        worker="w0",
        trace_id="e" * 32,
        stale=True,
        kept_headers={"x-team": "risk"},
        action="audit.erase",
        actor="ann",
        comment="asked for",
        details={"count": 3, "record_ids": ["r-1"], "of": {"unit": None, "share": 0.5}},
        braked=("2", "3"),
        streamed="broken_off",
        head_us=6,
    )
    assert all(getattr(record, name) != default for name, default in _defaults().items())
    assert decode_record(encode_record(record)) == record


def _defaults() -> dict[str, object]:
    return {
        field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(Record)
        if not field.required
    }


def test_fields_of_default_value_take_no_room() -> None:
    assert set(msgspec.msgpack.decode(encode_record(_record()))) == {
        "record_id",
        "request_id",
        "role",
        "received_ns",
        "model",
        "protocol",
        "outcome",
        "status",
        "request",
        "response",
    }


def test_a_field_of_a_later_version_is_passed_over() -> None:
    later = msgspec.msgpack.decode(encode_record(_record())) | {"mood": "sunny"}
    assert decode_record(msgspec.msgpack.encode(later)) == _record()


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x80", b"\xc1", msgspec.msgpack.encode({"record_id": 1})])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_record(data)


def test_text_that_is_no_unicode_is_kept_escaped_with_the_rest_untouched() -> None:
    record = _record(
        model="a\udcffb", headers={"x\udc80": "y\ud800"}, request=Payload(1, b"\xff\x00" * 16, truncated=True)
    )
    kept = decode_record(encode_record(record))
    assert kept == msgspec.structs.replace(record, model="a\\udcffb", headers={"x\\udc80": "y\\ud800"})


@given(st.binary(max_size=300))
def test_whatever_stands_there_is_a_record_or_is_refused(data: bytes) -> None:
    with suppress(msgspec.DecodeError):
        decode_record(data)


DEEP = (b"\x91" * 50_000 + b"\x90", b"\x81\xa1x" * 50_000 + b"\xc0")


@pytest.mark.parametrize(
    ("field", "value"),
    [("details", b"\x81\xa1x\xa2\xff\xfe"), ("comment", b"\xa2\xff\xfe")]
    + [(field, value) for field in ("details", "comment", "a field of later") for value in DEEP],
)
def test_a_record_with_a_field_that_no_reader_can_take_is_refused(field: str, value: bytes) -> None:
    fields = encode_record(_record())
    assert fields[:3] == b"\xde\x00\x0a"
    with pytest.raises(msgspec.DecodeError):
        decode_record(b"\xde\x00\x0b" + fields[3:] + msgspec.msgpack.encode(field) + value)
