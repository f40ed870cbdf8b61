"""The admin API as the command line calls it: read, write with compare-and-set, and errors in words for people.

Belongs here: HTTP to the admin port. Never here: printing, or what a document means.

A write carries one `Idempotency-Key` and is sent again with the same key when the connection is cut before the
answer, so it is made once however often it is sent.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote

import httpx2

from gateway.cli.address import check_url, is_loopback
from gateway.cli.answers import Outcome, Reading, problem_of, reading_of, refusal_of
from gateway.cli.failures import Misuse, Refusal, Unreachable
from gateway.cli.terms import UNCONDITIONAL, Terms

_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.1
# A change waits for every worker before it answers (`rules.publish_wait_ms`, 5 s unless set otherwise).
_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
# A job that runs a slow version twice may be silent for four minutes.
_STREAM_TIMEOUT = httpx2.Timeout(300.0, connect=5.0)


class AdminClient:
    """A client of one gateway's admin API; close it, or use it in a `with`."""

    def __init__(self, url: str, *, actor: str, comment: str = "") -> None:
        """Prepare for `url`; `actor` and `comment` are who and why of every write.

        Raises:
            Misuse: `url` is no HTTP URL, or the actor or comment cannot stand in a header.
        """
        self.url = check_url(url, "--admin-url")
        self._who: dict[str, str | bytes] = {
            "x-actor": _header("--actor", actor),
            "x-comment": _header("--comment", comment),
        }
        try:
            self._http = httpx2.Client(base_url=self.url, timeout=_TIMEOUT, trust_env=not is_loopback(self.url))
        except httpx2.InvalidURL as error:
            raise Misuse(f"--admin-url: {error}", "Write for example http://127.0.0.1:8081.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, *path: str, params: Mapping[str, str] | None = None) -> Reading:
        """Return what stands at `/admin/v1/<path>`. Raises `Refusal` (also when it does not exist) or `Unreachable`."""
        return reading_of(self._accepted(self._send("GET", path, headers=self._who, params=params)))

    def find(self, *path: str) -> Reading | None:
        """Return what stands at `/admin/v1/<path>`, or None when it does not exist."""
        try:
            return self.read(*path)
        except Refusal as refusal:
            if refusal.code == "not_found":
                return None
            raise

    def ask(self, *path: str, question: Mapping[str, Any]) -> Reading:
        """Return the answer to a question that changes nothing but needs a body."""
        return reading_of(self._accepted(self._send("POST", path, headers=self._who, document=question)))

    @contextmanager
    def stream(
        self, method: str, *path: str, params: Mapping[str, str], document: Mapping[str, Any] | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Lend the lines of an answer, each without its end, as they come.

        Raises (here, or while lines are taken):
            Refusal: before the first line, the API's own no.
            Unreachable: no gateway, or the answer was cut.
        """
        request: dict[str, Any] = {"headers": self._who, "params": params, "timeout": _STREAM_TIMEOUT}
        if document:
            request["json"] = document
        try:
            with self._http.stream(method, _place(path), **request) as response:
                if not response.is_success:
                    response.read()
                self._accepted(response)
                yield _lines(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            self._give_up(error)
        except httpx2.RequestError as error:
            raise Unreachable(
                f"the answer of the admin API at {self.url} was cut ({error})", "Run the command again."
            ) from None

    def register(self, model: str, manifest: Mapping[str, Any], *, allow_incomplete: bool = False) -> Outcome:
        """Register a version of a model; the same content again changes nothing."""
        params = {"allow_incomplete": "true"} if allow_incomplete else {}
        return self._write("POST", ("models", model, "versions"), {}, document=manifest, params=params)

    def put(self, *path: str, document: Mapping[str, Any], expect: int | None, terms: Terms = UNCONDITIONAL) -> Outcome:
        """Write a document that is now at revision `expect`, or that does not exist yet (None)."""
        return self._write("PUT", path, _expecting(expect), document=document, params=terms.query())

    def post(self, *path: str, document: Mapping[str, Any], expect: int | None = None) -> Outcome:
        """Have a change made that is no document itself; what it changes is at revision `expect`, if that is given."""
        return self._write("POST", path, _expecting(expect) if expect is not None else {}, document=document)

    def delete(self, *path: str, expect: int | None) -> Outcome:
        """Delete a document that is now at revision `expect`."""
        return self._write("DELETE", path, _expecting(expect))

    def _write(self, method: str, path: tuple[str, ...], condition: Mapping[str, str], **body: Any) -> Outcome:
        headers: dict[str, str | bytes] = {**self._who, **condition, "idempotency-key": str(uuid.uuid4())}
        response = self._accepted(self._send(method, path, headers=headers, **body))
        reading = reading_of(response)
        return Outcome(
            answer=reading.document,
            raw=reading.raw,
            created=response.status_code == 201,
            in_force=response.status_code != 202 and bool(reading.document.get("in_force", True)),
            admin_url=self.url,
        )

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        headers: Mapping[str, str | bytes] | None = None,
        document: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request, again when the connection is cut: a read is harmless and a write has its key."""
        request: dict[str, Any] = {"headers": dict(headers or {}), "params": params or None}
        if document is not None:
            # ASCII escapes carry any text that was read, half a surrogate pair included; the API judges it.
            request["content"] = json.dumps(document, allow_nan=False)
            request["headers"]["content-type"] = "application/json"
        last: httpx2.RequestError | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                return self._http.request(method, _place(path), **request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if last is None:
                    self._give_up(error)
                last = error
            except httpx2.RequestError as error:
                last = error
        raise Unreachable(
            f"the admin API at {self.url} took the request but the connection was cut before its answer ({last})",
            "" if method == "GET" else "The change may have been made or not: look before you run the command again.",
        )

    def _give_up(self, error: httpx2.RequestError) -> NoReturn:
        raise Unreachable(
            f"cannot reach the admin API at {self.url}: is `pointsman serve` running? ({error})",
            "Start it, or pass --admin-url (or set POINTSMAN_ADMIN_URL).",
        ) from None

    def _accepted(self, response: httpx2.Response) -> httpx2.Response:
        if response.is_success:
            return response
        problem = problem_of(response)
        if problem is None:
            raise Unreachable(
                f"{self.url} answers {response.status_code}, but not as the admin API does",
                "Check --admin-url: it is the admin port, not the data port.",
            )
        raise refusal_of(problem, response.status_code, response.request.url.path.removeprefix("/admin/v1/"))


def _place(path: Sequence[str]) -> str:
    return "/admin/v1/" + "/".join(quote(part, safe="") for part in path)


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the lines of a body; what follows the last end of a line is one that was cut, and left out."""
    rest = b""
    for chunk in response.iter_bytes():
        *whole, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        yield from whole


def _header(option: str, text: str) -> bytes:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise Misuse(f"{option}: expected one line of text without control characters", "Write it on one line.")
    return text.strip().encode()


def _expecting(revision: int | None) -> dict[str, str]:
    return {"if-none-match": "*"} if revision is None else {"if-match": f'"{revision}"'}
