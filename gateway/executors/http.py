"""Versions that run on servers speaking the Open Inference Protocol v2: the body is forwarded, the answer passed on.

Belongs here: which URL, which headers may pass, and what a backend says of itself. Never here: connections (that is
`wire`), rules, records, retries.
"""

import asyncio
import time
from functools import lru_cache

import msgspec

from gateway.catalog import HttpBackend, Manifest, Signature, TensorSpec
from gateway.errors import ServingError
from gateway.messages import Headers, Readiness, Rendered, Result, Work
from gateway.ports import InferProtocol, UpstreamClient, UpstreamReply
from gateway.tasks import Tasks

REQUEST_HEADERS = ("accept", "accept-language", "content-type", "tracestate")
"""What passes from caller to backend. Everything else stays here: credentials and cookies are for the gateway, not
for whoever runs a version; `host`, framing and hop-by-hop headers (RFC 9110, section 7.6.1) belong to one connection;
an encoding the caller accepts would encode the answer that the record keeps. `tracestate` goes with the `traceparent`
that the gateway makes."""
RESPONSE_HEADERS = frozenset({"content-encoding", "content-language", "inference-header-content-length", "retry-after"})
"""What passes from backend to caller beside `content-type`: what is needed to read the body, and when to come back.
Everything else stays here: cookies would be set on the gateway's name, `server`, `date` and framing are the
gateway's, and only the gateway says which model, version and rule answered."""
READY_TIMEOUT_MS = 2_000
"""How long a backend may take to say that it is ready; a probe must not wait as long as a prediction may."""
_JSON = "application/json"
_NONE: frozenset[str] = frozenset()
_OF_BOTH = frozenset(REQUEST_HEADERS)


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _Metadata(msgspec.Struct):
    """A backend's answer about a model. Fields that are not in the protocol are no concern of ours."""

    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    platform: str = ""


class _ReadyBody(msgspec.Struct):
    """Some servers answer a readiness probe with 200 and say in the body that they are not ready."""

    ready: bool = True


class HttpExecutor:
    """One version behind one or more URLs."""

    def __init__(self, manifest: Manifest, client: UpstreamClient) -> None:
        assert manifest.backend.http is not None  # the factory chooses by the kind of backend
        self._backend = manifest.backend.http
        self._bases = tuple(url.rstrip("/") for url in self._backend.urls)
        self._path = _path(self._backend, manifest.model)
        self._infer_urls = tuple(f"{base}{self._path}/infer" for base in self._bases)
        self._client = client
        self._in_flight = [0] * len(self._bases)
        self._next = 0

    async def prepare(self) -> None:
        """Do nothing: the manifest's URLs are checked already, and a rule may change while a backend is down."""

    async def ready(self) -> Readiness:
        """Ask every URL at once; the first that is ready answers for the version, with its signature if it tells."""
        asking = Tasks()
        answers = [asking.start(f"ready {base}", self._ask(base)) for base in self._bases]
        refusals: list[str] = []
        try:
            for answer in asyncio.as_completed(answers):
                readiness: Readiness = await answer
                if readiness.ready:
                    return readiness
                refusals.append(readiness.why)
        finally:
            await asking.cancel()
        return Readiness(False, "; ".join(refusals))

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:  # noqa: ARG002 - the body stays as it is
        """Forward the body to the URL with the fewest requests in flight and pass its answer on, whatever its status.

        Raises:
            ServingError: the client's; `backend` is the URL as the manifest has it.
        """
        chosen = self._choose()
        base = self._bases[chosen]
        started_ns = time.monotonic_ns()
        self._in_flight[chosen] += 1
        try:
            reply = await self._client.request(
                method="POST",
                url=self._infer_urls[chosen],
                headers=request_headers(work),
                body=work.body,
                deadline_ns=self._deadline(started_ns, work.deadline_ns),
                lane=work.lane,
            )
        except ServingError as error:
            error.backend = base
            raise
        finally:
            self._in_flight[chosen] -= 1
        return Result(rendered(reply), base, queue_ns=0, infer_ns=time.monotonic_ns() - started_ns)

    async def release(self) -> None:
        """Do nothing: the connections are the client's, and what is still in flight ends by itself."""

    def _choose(self) -> int:
        """Return the index of the URL with the fewest requests in flight; among equals they take turns."""
        count = len(self._bases)
        if count == 1:
            return 0
        chosen = min(range(count), key=lambda index: (self._in_flight[index], (index - self._next) % count))
        self._next = (chosen + 1) % count
        return chosen

    def _deadline(self, started_ns: int, work_ns: int) -> int:
        if self._backend.timeout_ms is None:
            return work_ns
        return min(work_ns, started_ns + self._backend.timeout_ms * 1_000_000)

    async def _ask(self, base: str) -> Readiness:
        """Return what one URL says about the version."""
        deadline_ns = self._deadline(now := time.monotonic_ns(), now + READY_TIMEOUT_MS * 1_000_000)
        try:
            said = await self._get(f"{base}{self._path}/ready", deadline_ns)
        except ServingError as error:
            return Readiness(False, error.message)
        if why := _not_ready(said):
            return Readiness(False, f"{base} {why}")
        try:
            return Readiness(True, signature=parse_metadata(await self._get(f"{base}{self._path}", deadline_ns)))
        except ServingError as error:
            return Readiness(True, error.message)
        except ValueError as error:
            return Readiness(True, f"{base} {error}")

    async def _get(self, url: str, deadline_ns: int) -> UpstreamReply:
        # A probe stands aside for predictions: it uses the shadows' connections.
        return await self._client.request(
            method="GET", url=url, headers=(("accept", _JSON),), body=b"", deadline_ns=deadline_ns, lane="shadow"
        )


def request_headers(work: Work) -> Headers:
    """Return the headers that a backend gets: the allowed ones of the caller's, and the gateway's own above them."""
    headers = work.headers
    barred = _named_by_connection(headers["connection"]) if "connection" in headers else _NONE
    for name, _ in work.forward:
        if name.lower() in _OF_BOTH:
            barred |= {name.lower()}
    passed = [(name, headers[name]) for name in REQUEST_HEADERS if name in headers and name not in barred]
    if "content-type" not in headers and "content-type" not in barred:
        passed.append(("content-type", _JSON))  # the gateway has read it as JSON, and some servers insist on the word
    return (*passed, *work.forward)


def rendered(reply: UpstreamReply) -> Rendered:
    """Return a backend's answer with the headers that may pass to the caller."""
    content_type = ""
    passed: list[tuple[str, str]] = []
    barred: set[str] = set()
    for name, value in reply.headers:
        if name == "content-type":
            content_type = content_type or value
        elif name in RESPONSE_HEADERS:
            passed.append((name, value))
        elif name == "connection":
            barred |= _named_by_connection(value)
    headers = tuple([field for field in passed if field[0] not in barred]) if passed else ()
    return Rendered(reply.status, reply.body, content_type or _JSON, headers)


def parse_metadata(reply: UpstreamReply) -> Signature:
    """Return the signature in a backend's model metadata; fields beyond the protocol's are passed over.

    Raises:
        ValueError: another status than 200, or not the metadata of the protocol; the message says where.
    """
    if reply.status != 200:
        raise ValueError(f"answered {reply.status} to the question for its metadata")
    try:
        metadata = msgspec.json.decode(reply.body, type=_Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"gave metadata that is not the Open Inference Protocol's: {error}") from None
    return Signature(metadata.platform, _specs(metadata.inputs), _specs(metadata.outputs))


def _specs(tensors: tuple[_Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)


def _not_ready(reply: UpstreamReply) -> str:
    """Return why a readiness answer means "no", or nothing when it means "yes"."""
    if reply.status != 200:
        return f"answered {reply.status} to the question whether it is ready"
    try:
        said = msgspec.json.decode(reply.body, type=_ReadyBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""  # no body, or one of its own: the status has said it
    return "" if said.ready else "says that it is not ready"


def _path(backend: HttpBackend, model: str) -> str:
    version = f"/versions/{backend.version}" if backend.version else ""
    return f"/v2/models/{backend.model or model}{version}"


@lru_cache(maxsize=256)
def _named_by_connection(value: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in value.split(","))
