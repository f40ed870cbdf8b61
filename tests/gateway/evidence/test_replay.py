"""One recorded input run again on the real models: the same bytes, how far apart, or why it cannot be."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from gateway.capture import capture, capture_unseen
from gateway.catalog import Backend, HttpBackend
from gateway.errors import CannotReplay
from gateway.record import Attempt, Payload
from routing import Capture
from tests.gateway.evidence.conftest import changed, digit, outputs_of
from tests.records import control_record, shadow_of

WithBench = Callable[..., None]


def test_the_recorded_version_gives_identical_bytes_again(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        record = await at.serve(request_id="hello-1")
        for any_id in (record.record_id, "hello-1"):
            replayed = await at.replay(any_id)
            assert (replayed.record_id, replayed.agrees) == (record.record_id, True)
            assert (replayed.again.identical, replayed.again.by_digest, replayed.again.status) == (True, False, 200)
            assert (replayed.recorded.version, replayed.recorded.digest, replayed.recorded.infer_us) == (
                "2",
                record.digest,
                100,
            )
            assert replayed.other is None

    with_bench(test)


def test_an_answer_that_differs_is_told_by_output_with_place_and_size(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        _, answer = await at.answer("2", digit(0))
        scores = outputs_of(answer)["probabilities"]
        recorded = changed(answer, "probabilities", [*scores[:7], scores[7] + 0.25, *scores[8:]])
        replayed = await at.replay(at.write(at.record(), digit(0), recorded))
        assert (replayed.agrees, replayed.again.identical) == (False, False)
        label, probabilities = replayed.again.outputs
        assert (label.name, label.differing, label.flips) == ("label", 0, "")
        assert (probabilities.differing, probabilities.position) == (1, (0, 7))
        assert probabilities.largest == pytest.approx(0.25)

    with_bench(test)


def test_an_answer_of_which_only_the_digest_was_kept_is_compared_by_that(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        digest = Capture(response="digest")
        same = await at.replay(await at.serve(policy=digest))
        assert (same.agrees, same.again.identical, same.again.by_digest) == (True, True, True)
        other = await at.replay(at.write(at.record(), digit(0), b"{}", digest))
        assert (other.agrees, other.again.identical) == (False, False)
        assert "how far it differs cannot be told: of the recorded answer it was not kept" in other.again.why
        cut = await at.replay(await at.serve(policy=Capture(max_bytes=len(digit(0)), response="full")))
        assert cut.agrees

    with_bench(test)


def test_the_same_error_again_is_the_same_answer(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        body = b'{"inputs": []}'
        status, answer = await at.answer("2", body)
        assert status == 400
        refused = {"served": None, "digest": None, "outcome": "refused", "status": 400, "error_code": "invalid_input"}
        replayed = await at.replay(at.write(at.record(**refused), body, answer))
        assert (replayed.agrees, replayed.again.identical, replayed.again.error_code) == (True, True, "invalid_input")
        failed = at.write(at.record(**refused | {"status": 504, "error_code": "deadline_exceeded"}), digit(0), b"{}")
        replayed = await at.replay(failed)
        assert (replayed.agrees, replayed.recorded.status, replayed.again.status) == (False, 504, 200)

    with_bench(test)


def test_a_shadow_is_replayed_with_the_request_of_its_primary(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        primary = await at.serve()
        _, answer = await at.answer("3", digit(0))
        shadow = shadow_of(primary, 1, digest=at.registered["3"].digest)
        at.write(shadow, digit(0), answer)
        replayed = await at.replay(shadow)
        assert (replayed.role, replayed.recorded.version, replayed.agrees) == ("shadow", "3", True)

    with_bench(test)


# ── another version beside it ────────────────────────────────────────────────────────────────────────────────────


def test_another_version_is_held_against_the_recorded_answer(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        record = await at.serve(version="1", sample=3)
        _, mine = await at.answer("1", digit(3))
        _, theirs = await at.answer("3", digit(3))
        replayed = await at.replay(record, "3")
        assert replayed.again.identical
        other = replayed.other
        assert (other.version, other.digest, other.identical) == ("3", at.registered["3"].digest, None)
        label, probabilities = other.outputs
        one, two = outputs_of(mine), outputs_of(theirs)
        assert probabilities.largest == max(
            abs(a - b) for a, b in zip(one["probabilities"], two["probabilities"], strict=True)
        )
        assert (label.differing == 0) is (one["label"] == two["label"]) is (not other.flips) is replayed.agrees

    with_bench(test)


def test_another_version_is_tried_also_where_the_recorded_one_is_gone(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        record = await at.serve()
        del at.registered["2"]
        replayed = await at.replay(record, "3")
        assert "is not registered" in replayed.again.why
        assert replayed.again.status is None
        assert replayed.other.outputs

    with_bench(test)


def test_the_same_again_stands_in_for_an_answer_that_was_not_kept(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        record = await at.serve(policy=Capture(response="none"))
        assert (await at.replay(record, "3")).other.outputs
        del at.registered["2"]
        other = (await at.replay(record, "3")).other
        assert "there is no recorded answer to compare with: it was not kept" in other.why

    with_bench(test)


# ── what cannot be replayed ──────────────────────────────────────────────────────────────────────────────────────


async def why_not(at: Any, record: Any, version: str | None = None) -> str:
    with pytest.raises(CannotReplay) as refused:
        await at.replay(record, version)
    return refused.value.message


def test_a_request_that_was_not_kept_whole_is_refused_with_the_reason(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        for policy, words in (
            (Capture(request="digest"), "was not kept (the route's capture.request)"),
            (Capture(max_bytes=10), "only the beginning of its request was kept"),
            (Capture(redact=("/inputs/0/name",)), "fields of its request were replaced"),
        ):
            assert words in await why_not(at, await at.serve(policy=policy))
        kept = await at.serve(policy=Capture(redact=("/nowhere",)))
        assert (await at.replay(kept)).agrees
        unseen = at.record(attempts=(), served=None, outcome="refused", error_code="client_closed")
        at.keep(unseen, capture_unseen(7), (Payload(0), b""))
        assert "not all of its request had come" in await why_not(at, unseen)

    with_bench(test)


def test_a_request_that_was_erased_or_is_missing_or_another_is_refused(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        erased = await at.serve()
        at.store.erase(at.store.places_of(bytes.fromhex(erased.unit)), "01a2-erasure")
        assert await why_not(at, erased) == "its contents were erased for good (control record 01a2-erasure)"
        payload, part = capture(digit(0), "full", Capture())
        for kept, words in ((b"", "is missing from the store"), (part + b" ", "is not the one that was sealed")):
            record = at.record()
            at.keep(record, (payload, kept), (Payload(0), b""))
            assert words in await why_not(at, record)

    with_bench(test)


def test_a_shadow_whose_primary_is_not_kept_is_refused(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        shadow = shadow_of(at.record(), 1)
        at.write(shadow, digit(0), b"{}")
        assert "which is not kept" in await why_not(at, shadow)

    with_bench(test)


def test_only_inferences_are_replayed(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        done = control_record(1, "audit.list")
        at.write(done, b"", b"")
        assert "only inferences are replayed" in await why_not(at, done)

    with_bench(test)


def test_a_version_that_is_gone_or_changed_is_refused(with_bench: WithBench) -> None:
    async def test(at: Any) -> None:
        never = {"served": None, "digest": None, "attempts": (), "outcome": "refused", "error_code": "unknown_model"}
        assert "no version ran" in await why_not(at, at.write(at.record(**never), digit(0), b""))
        strange = at.write(at.record(protocol="smoke-signals"), digit(0), b"{}")
        assert "protocol smoke-signals is not known" in await why_not(at, strange)
        other = await at.serve(digest="0" * 64)
        assert "registered with another artifact than the record's" in await why_not(at, other)
        record = await at.serve()
        at.artifact("2").write_bytes(b"something else")
        assert "the artifact has changed" in await why_not(at, record)
        at.artifact("2").unlink()
        assert "cannot read its artifact" in await why_not(at, record)
        del at.registered["2"]
        assert await why_not(at, record) == "version 2 of model digits is not registered"
        assert await why_not(at, record, "9") == "version 9 of model digits is not registered"

    with_bench(test)


# ── versions on backends ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def backend() -> Iterator[tuple[str, list[str]]]:
    """A backend that answers every inference with one number; its URL, and the request ids that it was called with."""
    called: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            called.append(self.headers["x-request-id"])
            self.rfile.read(int(self.headers["content-length"]))
            body = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", called
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_live_backend_is_called_only_when_that_is_allowed(
    with_bench: WithBench, backend: tuple[str, list[str]]
) -> None:
    url, called = backend

    async def test(at: Any) -> None:
        at.registered["9"] = msgspec.structs.replace(
            at.registered["1"], version="9", backend=Backend(http=HttpBackend((url,)))
        )
        answer = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}'
        record = at.write(at.record("9", attempts=(Attempt("9", url, 9, 200),)), digit(0), answer)
        assert "say --allow-backend" in await why_not(at, record)
        assert called == []
        replayed = await at.replay(record, allow_backend=True)
        assert (replayed.agrees, replayed.again.identical) == (True, True)
        assert called == [f"replay-of-{record.record_id}"]

    with_bench(test)
