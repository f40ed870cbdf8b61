"""The Open Inference Protocol v2 over HTTP/REST, JSON tensors: paths, bodies, statuses and reply headers.

Belongs here: what the protocol says about one request and one answer, and the glue between wire and data plane.
Never here: choosing versions, calling executors, sockets.

This is the door of the protocol's room; behind it are the paths (`oip_v2_paths`), the form of bodies
(`oip_v2_bodies`), tensors (`oip_v2_tensors`, large ones `oip_v2_bulk`) and datatypes (`oip_v2_kinds`).

Specification: Open Inference Protocol, REST API, https://github.com/kserve/open-inference-protocol
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson
from msgspec import UNSET
from numpy.typing import NDArray

from gateway import __version__
from gateway.catalog import Signature, TensorSpec
from gateway.dataplane import DataPlane
from gateway.errors import (
    GatewayError,
    InvalidInput,
    MethodNotAllowed,
    Overloaded,
    UnsupportedEncoding,
    VersionNotReady,
)
from gateway.inquiries import Inquiries
from gateway.messages import Answer, Headers, InferRequest, Readiness, Rendered, Tensors, WireReply, WireRequest
from gateway.protocols.oip_v2_bodies import RequestedOutput, read_body, read_identity
from gateway.protocols.oip_v2_kinds import shown
from gateway.protocols.oip_v2_paths import ROUTES, Target, find, not_allowed, parse
from gateway.protocols.oip_v2_tensors import names_of, read_inputs, write_data
from gateway.times import in_ms

__all__ = ["ROUTES", "STATUS", "OipV2", "OipV2Face", "Target", "parse", "passed_on", "reply_lines"]

_NO_BINARY: Final = "binary tensors are not spoken here; send JSON (in tritonclient and KServe: binary_data=False)"

_OURS: Final = frozenset({"content-type", "server-timing", "x-request-id", "x-record-id", "x-model-name"}) | {
    "x-model-version",
    "x-model-digest",
    "x-route-revision",
    "x-route-reason",
    "x-route-cohort",
}
"""What only the gateway says; a backend's header of that name is left out."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch

STATUS: Final[Mapping[str, int]] = {
    "malformed_request": 400,
    "malformed_body": 400,
    "invalid_input": 400,
    "invalid_header": 400,
    "version_not_allowed": 403,
    "unknown_model": 404,
    "unknown_version": 404,
    "unknown_path": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "unsupported_encoding": 415,
    "unmet_expectation": 417,
    "head_too_large": 431,
    "client_closed": 499,
    "model_failed": 500,
    "internal_error": 500,
    "backend_unreachable": 502,
    "backend_protocol_error": 502,
    "backend_status": 502,
    "not_ready": 503,
    "version_not_ready": 503,
    "overloaded": 503,
    "audit_unavailable": 503,
    "stopping": 503,
    "deadline_exceeded": 504,
}
"""The HTTP status of every error that can reach the data port, by its code."""


class OipV2:
    """The protocol's half of an inference; a `ports.InferProtocol` without state."""

    name = "oip-v2-http"

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse compressed bodies and the binary tensor extension. Raises `UnsupportedEncoding`."""
        encoding = headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
            raise UnsupportedEncoding(f"Content-Encoding: {shown(encoding)} is not spoken here; send the body as it is")
        if "inference-header-content-length" in headers:
            raise UnsupportedEncoding(f"Inference-Header-Content-Length: {_NO_BINARY}")

    def peek(self, body: bytes) -> str | None:
        """Return the body's own id after checking that the whole of it is a JSON object. Raises `MalformedBody`."""
        return read_identity(body).id

    def decode(self, body: bytes, signature: Signature) -> Tensors:
        """Return the tensors of a body, each of the dtype and shape of the signature.

        Raises:
            MalformedBody: not JSON, or not of the protocol's form.
            InvalidInput: a tensor or a requested output that does not fit the signature.
            UnsupportedEncoding: a tensor whose data is not in the JSON.
        """
        request = read_body(body)
        inputs = read_inputs(request.inputs, signature)
        outputs = _requested(request.outputs, signature) if request.outputs else ()
        return Tensors(inputs, outputs, request.id)

    def encode(
        self, model: str, version: str, oip_id: str | None, outputs: Sequence[tuple[str, str, NDArray[Any]]]
    ) -> bytes:
        """Return the body of an answer; `outputs` are (name, datatype, array). NaN and infinities become null."""
        answer: dict[str, Any] = {"model_name": model, "model_version": version}
        if oip_id is not None:
            answer["id"] = oip_id
        answer["outputs"] = [
            {"name": name, "datatype": datatype, "shape": array.shape, "data": write_data(array)}
            for name, datatype, array in outputs
        ]
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def render_error(self, error: GatewayError) -> Rendered:
        """Return `{"error": …}` with the status of the error's code, Allow where a method is refused, and Retry-After
        where a queue is full.
        """
        more: Headers = ()
        if isinstance(error, MethodNotAllowed):
            more = (("allow", ", ".join(error.allowed)),)
        elif isinstance(error, Overloaded):
            more = (("retry-after", str(error.retry_after_s)),)
        return Rendered(STATUS.get(error.code, 500), orjson.dumps({"error": error.public}), headers=more)


def _requested(outputs: Sequence[RequestedOutput], signature: Signature) -> tuple[str, ...]:
    known = {spec.name for spec in signature.outputs}
    names: list[str] = []
    for index, output in enumerate(outputs):
        if output.name not in known:
            given = names_of(signature.outputs)
            raise InvalidInput(
                f"outputs[{index}].name: unknown output {shown(output.name)}; this version gives {given}"
            )
        if output.name in names:
            raise InvalidInput(f"outputs[{index}].name: output {shown(output.name)} stands twice")
        for field in ("classification", "shared_memory_region"):
            if output.parameters is not None and getattr(output.parameters, field) is not UNSET:
                raise UnsupportedEncoding(f"outputs[{index}].parameters.{field}: not spoken here; leave it out")
        names.append(output.name)
    return tuple(names)


# ── between wire and data plane ──────────────────────────────────────────────────────────────────────────────────


class OipV2Face:
    """Answers every request of the data port: inference through the data plane, the rest by inquiries."""

    def __init__(self, dataplane: DataPlane, inquiries: Inquiries) -> None:
        self._dataplane = dataplane
        self._inquiries = inquiries
        self._protocol = OipV2()

    async def handle(self, request: WireRequest) -> WireReply:
        """Return the reply to one request of the wire. A GatewayError never leaves here."""
        refused = request.refused
        try:
            row, target = find(request.path)
            if request.method not in row.allowed:
                refused = refused or not_allowed(request.method, row)
            if target.endpoint != "infer":
                if refused is not None:
                    raise refused
                return await self._answer(target)
        except GatewayError as error:
            return self.refuse(error)
        # An inference that is refused already goes the same way as all others, so that it is recorded.
        answer = await self._dataplane.infer(
            InferRequest(
                target.model,
                target.version,
                request.headers,
                request.body,
                request.client,
                request.received_ns,
                request.started_ns,
                refused,
                request.declared_size,
                request.outlet,
            ),
            self._protocol,
        )
        return self.reply(answer)

    def reply(self, answer: Answer) -> WireReply:
        """Return an answer as it is sent; of one whose body is still to come, the head.

        Raises:
            ValueError: a header would break out of its line.
        """
        rendered, broken = answer.rendered, answer.error is not None
        theirs = passed_on(rendered.headers) if rendered.headers else ()
        return WireReply(rendered.status, theirs, rendered.body, answer.launch_shadows, reply_lines(answer), broken)

    def refuse(self, error: GatewayError) -> WireReply:
        """Return the reply to a request that is no inference, or of which nothing is known but what is wrong."""
        rendered = self._protocol.render_error(error)
        return WireReply(rendered.status, (("content-type", rendered.content_type), *rendered.headers), rendered.body)

    def is_inference(self, path: str) -> bool:
        """Tell whether a percent-decoded path may be an inference's; those of every other request say no for sure."""
        return path.endswith("/infer")

    async def _answer(self, target: Target) -> WireReply:
        match target.endpoint:
            case "live":
                live = self._inquiries.live()
                return _json({"live": live}, 200 if live else 503)
            case "ready":
                ready = self._inquiries.ready()
                return _json({"ready": ready}, 200 if ready else 503)
            case "model":
                return _json(_metadata(target, *await self._inquiries.describe(target.model, target.version)))
            case "model_ready":
                readiness = await self._inquiries.model_ready(target.model, target.version)
                return _json(_readiness(target, readiness), 200 if readiness.ready else 503)
            case _:
                return _json({"name": "pointsman", "version": __version__, "extensions": []})


def reply_lines(answer: Answer) -> str:
    """Return the headers of an answer as lines: which version gave it, why, and how long it took, as far as known.

    Raises:
        ValueError: the content type would break out of its line.
    """
    content_type = answer.rendered.content_type
    if "\n" in content_type or "\r" in content_type:
        raise ValueError("the content type of an answer has a line break in it")
    if not answer.record_id:
        named = f"x-request-id: {answer.request_id}\r\n" if answer.request_id else ""
        return f"content-type: {content_type}\r\n{named}"
    decided = _decided(answer.model, answer.served, answer.digest, answer.revision, answer.reason, answer.cohort)
    return (
        f"content-type: {content_type}\r\nx-request-id: {answer.request_id}\r\nx-record-id: {answer.record_id}\r\n"
        f"server-timing: {_timing(answer)}\r\n{decided}"
    )


def passed_on(headers: Headers) -> Headers:
    """Return a backend's headers without those that only the gateway says."""
    return tuple(field for field in headers if field[0].lower() not in _OURS)


@lru_cache(maxsize=4096)
def _decided(  # noqa: PLR0917 - what the lines depend on, and so what they are kept by
    model: str, served: str | None, digest: str | None, revision: int | None, reason: str | None, cohort: str | None
) -> str:
    """Return the lines that are the same for every request decided alike."""
    lines = ""
    if _HEADER_NAME(model):  # the caller's text until a route has been found under it
        lines += f"x-model-name: {model}\r\n"
    if served is not None:
        lines += f"x-model-version: {served}\r\n"
        if digest is not None:
            lines += f"x-model-digest: sha-256={digest}\r\n"
    if revision is not None:
        lines += f"x-route-revision: {revision}\r\n"
    if reason is not None:
        lines += f"x-route-reason: {reason}\r\n"
    if cohort is not None:
        lines += f"x-route-cohort: {cohort}\r\n"
    return lines


def _timing(answer: Answer) -> str:
    """Return the Server-Timing value, in ms: https://www.w3.org/TR/server-timing/."""
    return (
        f"route;dur={in_ms(answer.route_us)}, queue;dur={in_ms(answer.queue_us)}, "
        f"infer;dur={in_ms(answer.infer_us)}, total;dur={in_ms(answer.total_us)}"
    )


def _metadata(target: Target, versions: Sequence[str], readiness: Readiness) -> dict[str, Any]:
    signature = readiness.signature
    if signature is None:
        raise VersionNotReady(readiness.why or "the signature of this version is not known yet; try again shortly")
    return {
        "name": target.model,
        "versions": versions,
        "platform": signature.platform,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _readiness(target: Target, readiness: Readiness) -> dict[str, Any]:
    body = {"name": target.model, "ready": readiness.ready}
    # Why it is not ready names files and addresses of ours; operators read that in the log.
    return body if readiness.ready else {**body, "error": "this version cannot serve now"}


def _json(value: Any, status: int = 200) -> WireReply:
    return WireReply(status, (("content-type", "application/json"),), orjson.dumps(value))
