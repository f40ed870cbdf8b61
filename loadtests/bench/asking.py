"""The requests of a load as bytes on the wire, and whether what came back for one is right.

Belongs here: one request, one answer. Never here: sending many, or timing.
"""

import http.client
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

ASK_SECONDS = 10.0


class Ask(Struct, frozen=True):
    """One POST of JSON."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def wire(self) -> bytes:
        """Return it as HTTP/1.1 (RFC 9112) on a connection that is kept."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self._headers())
        return f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{head}\r\n".encode() + self.body

    def _headers(self) -> tuple[tuple[str, str], ...]:
        own = (("content-type", "application/json"), ("content-length", str(len(self.body))))
        return (*own, *self.headers)


class Answer(Struct, frozen=True):
    """What came back; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body read as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


class Load(Struct, frozen=True):
    """What is sent, in turn and over again, and who judges the answers: `complaint(number, answer)`, empty if right."""

    asks: Sequence[Ask]
    complaint: Callable[[int, Answer], str]


class WrongAnswer(Exception):
    """An answer is not what the request asks for, so nothing measured on it would count."""


def ask(url: str, one: Ask, seconds: float = ASK_SECONDS) -> Answer:
    """Send one request on a connection of its own and return the answer.

    Raises:
        OSError: no connection, or no answer in time.
        http.client.HTTPException: the answer is no HTTP.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request("POST", one.path, one.body, {"content-type": "application/json", **dict(one.headers)})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    finally:
        connection.close()


def complaint_of(url: str, load: Load, number: int) -> str:
    """Return what is wrong with the answer to one request of a load; nothing if it is right."""
    try:
        answer = ask(url, load.asks[number])
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:200].decode(errors='replace')}"
    try:
        return load.complaint(number, answer)
    except (ValueError, LookupError, TypeError) as error:
        return f"not the body that was asked for ({error!r}): {answer.body[:200].decode(errors='replace')}"


def check_answers(url: str, load: Load, count: int = 20) -> None:
    """Send requests spread over the load and check each answer.

    Raises:
        WrongAnswer: the first that is not right.
    """
    step = max(1, len(load.asks) // count)
    for number in range(0, len(load.asks), step)[:count]:
        if complaint := complaint_of(url, load, number):
            raise WrongAnswer(f"request {number}: {complaint}")


def same_json(expected: Any) -> Callable[[int, Answer], str]:
    """Return a judge that wants exactly this JSON value."""

    def complaint(_number: int, answer: Answer) -> str:
        got = msgspec.json.decode(answer.body)
        return "" if got == expected else f"{got!r} instead of {expected!r}"

    return complaint
