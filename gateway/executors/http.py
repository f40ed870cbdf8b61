"""Versions that run on servers speaking the Open Inference Protocol v2: the body is forwarded, the answer passed on.

Belongs here: one request and its answer, which headers may pass, and what counts as a backend's failure. Never here:
connections (that is `wire`), which URL (`http_endpoints`), rules, records, retries.
"""

import time
from functools import lru_cache
from typing import Final

from gateway.catalog import Ejection, HttpBackend, Manifest
from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, ServingError
from gateway.executors.http_endpoints import Endpoint, Endpoints
from gateway.executors.http_health import HealthChecks
from gateway.executors.http_metadata import not_ready, parse_metadata
from gateway.executors.http_readiness import first_ready
from gateway.executors.http_streams import Arrived, flows, is_stream
from gateway.messages import Begun, Headers, Readiness, Rendered, Result, Work
from gateway.ports import InferProtocol, UpstreamClient, UpstreamReply
from gateway.standings import Standings
from gateway.timeouts import TIMEOUT_HEADER, remaining

REQUEST_HEADERS: Final = ("accept", "accept-language", "content-type", "tracestate")
"""What passes from caller to backend. Everything else stays here: credentials and cookies are for the gateway, not
for whoever runs a version; `host`, framing and hop-by-hop headers (RFC 9110, section 7.6.1) belong to one connection;
an encoding the caller accepts would encode the answer that the record keeps. `tracestate` goes with the `traceparent`
that the gateway makes."""
RESPONSE_HEADERS: Final = frozenset(
    {"content-encoding", "content-language", "inference-header-content-length", "retry-after"}
)
"""What passes from backend to caller beside `content-type`: what is needed to read the body, and when to come back.
Everything else stays here: cookies would be set on the gateway's name, `server`, `date` and framing are the
gateway's, and only the gateway says which model, version and rule answered."""
READY_TIMEOUT_MS: Final = 2_000
"""How long a backend may take to say that it is ready; a probe must not wait as long as a prediction may."""
_JSON: Final = "application/json"
_NEARLY_ALL_NS: Final = 900_000
"""Nine tenths of a ms, in ns."""
_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
"""Statuses by which a server says that it cannot serve at all, as opposed to this request alone (500 may be that)."""
_NONE: Final[frozenset[str]] = frozenset()
_OF_BOTH: Final = frozenset(REQUEST_HEADERS)


class HttpExecutor:
    """One version behind one or more URLs."""

    def __init__(self, manifest: Manifest, client: UpstreamClient, standings: Standings | None = None) -> None:
        """Tell `standings` of backends in trouble."""
        assert manifest.backend.http is not None  # the factory chooses by the kind of backend
        self._backend = backend = manifest.backend.http
        self._path = _path(backend, manifest.model)
        self._version = manifest.version
        self._client = client
        self._endpoints = Endpoints(
            manifest.model,
            manifest.version,
            [url.rstrip("/") for url in backend.urls],
            path=f"{self._path}/infer",
            ejection=backend.ejection or Ejection(),
            standings=standings or Standings(),
        )
        self._checks: HealthChecks | None = None
        if backend.health is not None:
            name = f"{manifest.model}/{manifest.version}"
            self._checks = HealthChecks(name, backend.health, self._endpoints, self._unwell)

    @property
    def active(self) -> int:
        """Requests under way at every URL, shadows' included."""
        return self._endpoints.in_flight

    async def prepare(self) -> None:
        """Begin with health checks if the manifest asks for them.

        Nothing else is asked: the manifest's URLs are checked already, and a rule may change while a backend is down.
        """
        if self._checks is not None:
            self._checks.start()

    async def ready(self) -> Readiness:
        """Ask every URL that is not known to be in trouble at once; the first that is ready answers for the version,
        with its signature if it tells.
        """
        refusals = [_trouble(endpoint) for endpoint in self._endpoints.all if not endpoint.standing]
        bases = [endpoint.url for endpoint in self._endpoints.all if endpoint.standing]
        return await first_ready({base: self._ask(base) for base in bases}, refusals)

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:  # noqa: ARG002 - the body stays as it is
        """Forward the body to the URL with the fewest requests in flight and pass its answer on, whatever its status;
        server-sent events, if `work` has a relay, through that and as they come.

        Raises:
            ServingError: the client's; `backend` is the URL as the manifest has it.
            ClientClosed: the relay's.
        """
        relay = work.relay
        endpoint = self._endpoints.choose(work.avoid)
        base = endpoint.url
        started_ns = time.monotonic_ns()
        deadline_ns = self._deadline(started_ns, work.deadline_ns)
        endpoint.in_flight += 1
        try:
            reply = await self._client.request(
                method="POST",
                url=endpoint.infer_url,
                headers=(*request_headers(work), (TIMEOUT_HEADER, remaining(deadline_ns, started_ns))),
                body=work.body,
                deadline_ns=deadline_ns,
                lane=work.lane,
                flows=flows if relay is not None else None,
            )
            answer = rendered(reply)
            if relay is not None and answer.content_type != _JSON and is_stream(answer.status, answer.content_type):
                flow = reply.flow or Arrived(answer.body)
                answer = Rendered(answer.status, b"", answer.content_type, answer.headers)
                await relay.pass_on(Begun(answer, self._version, base, started_ns, flow))
        except ServingError as error:
            error.backend = base
            if self._is_its_fault(error, work, deadline_ns - started_ns):
                self._endpoints.failed(endpoint, started_ns, error.message)
            raise
        finally:
            endpoint.in_flight -= 1
        if endpoint.marked or reply.status >= 502:
            self._judge(endpoint, work, reply.status, started_ns)
        return Result(answer, base, queue_ns=0, infer_ns=time.monotonic_ns() - started_ns)

    async def release(self) -> None:
        """End the health checks. The connections are the client's, and what is still in flight ends by itself."""
        checks, self._checks = self._checks, None
        if checks is not None:
            await checks.stop()
        self._endpoints.release()

    def _deadline(self, started_ns: int, work_ns: int) -> int:
        if self._backend.timeout_ms is None:
            return work_ns
        return min(work_ns, started_ns + self._backend.timeout_ms * 1_000_000)

    # ── what counts as failure ───────────────────────────────────────────────────────────────────────────────────

    def _judge(self, endpoint: Endpoint, work: Work, status: int, started_ns: int) -> None:
        if work.lane != "primary":
            return  # a copy may be more than a backend was made for; it decides nothing for requests that count
        if status in _GATEWAY_ERRORS:
            self._endpoints.failed(endpoint, started_ns, f"answered {status}")
        else:
            self._endpoints.succeeded(endpoint, started_ns)

    def _is_its_fault(self, error: ServingError, work: Work, allowed_ns: int) -> bool:
        """Tell whether an error speaks against the backend.

        A time-out does if the backend had (nearly) all of the time that it may take, by its own time-out or the
        route's: a caller who asks for an answer within 1 ms says nothing about it, nor does a second try that began
        when little was left.
        """
        if work.lane != "primary":
            return False
        if isinstance(error, DeadlineExceeded):
            limits = [ms for ms in (self._backend.timeout_ms, work.timeout_ms) if ms]
            return bool(limits) and min(limits) * _NEARLY_ALL_NS <= allowed_ns
        return isinstance(error, BackendUnreachable | BackendProtocolError)

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, base: str) -> Readiness:
        """Return what one URL says about the version."""
        deadline_ns = self._deadline(now := time.monotonic_ns(), now + READY_TIMEOUT_MS * 1_000_000)
        try:
            said = await self._get(f"{base}{self._path}/ready", deadline_ns)
        except ServingError as error:
            return Readiness(False, error.message)
        if why := not_ready(said):
            return Readiness(False, f"{base} {why}")
        try:
            return Readiness(True, signature=parse_metadata(await self._get(f"{base}{self._path}", deadline_ns)))
        except ServingError as error:
            return Readiness(True, error.message)
        except ValueError as error:
            return Readiness(True, f"{base} {error}")

    async def _unwell(self, base: str, path: str | None, deadline_ns: int) -> str:
        """Return what is wrong with one URL, or nothing; `path` is what to ask for in place of the readiness."""
        try:
            return not_ready(await self._get(f"{base}{path or f'{self._path}/ready'}", deadline_ns))
        except ServingError as error:
            return error.message

    async def _get(self, url: str, deadline_ns: int) -> UpstreamReply:
        # On connections of their own: predictions that wait for one must not make a backend look dead, nor have to
        # wait for questions.
        return await self._client.request(
            method="GET", url=url, headers=(("accept", _JSON),), body=b"", deadline_ns=deadline_ns, lane="probe"
        )


def _trouble(endpoint: Endpoint) -> str:
    if not endpoint.healthy:
        return f"{endpoint.url} fails its health checks: {endpoint.why}"
    return f"{endpoint.url} is left out for a while, because it failed again and again"


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


def _path(backend: HttpBackend, model: str) -> str:
    version = f"/versions/{backend.version}" if backend.version else ""
    return f"/v2/models/{backend.model or model}{version}"


@lru_cache(maxsize=256)
def _named_by_connection(value: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in value.split(","))
