"""A small HTTP/1.1 client on asyncio streams, cheap enough to send tens of thousands of requests from a test."""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct


class RawAnswer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> RawAnswer:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return RawAnswer(int(head[0].split()[1]), headers, body)


async def _work(url: str, requests: Sequence[bytes], numbers: list[int], answers: list[RawAnswer | None]) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        while numbers:
            number = numbers.pop()
            answers[number] = await ask(reader, writer, requests[number])
    finally:
        writer.close()
        await writer.wait_closed()


async def _send_all(url: str, requests: Sequence[bytes], connections: int) -> list[RawAnswer]:
    numbers = list(range(len(requests) - 1, -1, -1))
    answers: list[RawAnswer | None] = [None] * len(requests)
    await asyncio.gather(*(_work(url, requests, numbers, answers) for _ in range(connections)))
    return [answer for answer in answers if answer is not None]


def send_all(url: str, requests: Sequence[bytes], connections: int = 16) -> list[RawAnswer]:
    """Send every request over `connections` keep-alive connections and return the answers in order."""
    return asyncio.run(_send_all(url, requests, connections))


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode()


def post(path: str, body: bytes, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body
