"""The malformed messages through real proxies: no request reaches the face that the proxy did not mean to send.

Each proxy marks every request that it forwards with the path as the proxy has read it. A request without that mark, or
with the mark of another path, was smuggled: the proxy took it for a part of the one before. After each message an
honest caller asks through the same proxy, which reuses its connections to the server, and must get its own answer.
"""

import asyncio
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.gateway.wire.malformed import CASES, SMUGGLED
from tests.gateway.wire.open_port import INFER, Opened, on_port, post, replies_in

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/replies;
  fastcgi_temp_path {folder}/unused-1;
  uwsgi_temp_path {folder}/unused-2;
  scgi_temp_path {folder}/unused-3;
  client_header_timeout 2s;
  client_body_timeout 2s;
  client_max_body_size 1g;
  large_client_header_buffers 8 64k;
  {options}
  upstream server {{ server 127.0.0.1:{server}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://server;
      proxy_http_version 1.1;
      proxy_ignore_client_abort on;
      proxy_set_header Connection "";
      proxy_set_header Host test;
      proxy_set_header X-Through $request_uri;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 256
  tune.bufsize 65536
defaults
  mode http
  timeout client 2s
  timeout server 5s
  timeout connect 5s
  timeout http-request 2s
  http-reuse always
listen proxy
  bind 127.0.0.1:{listen}
  {options}
  http-request set-header X-Through %[url]
  server server 127.0.0.1:{server}
"""
PROXIES = {
    "nginx": ("nginx", NGINX, ""),
    "nginx, lenient and unbuffered": (
        "nginx",
        NGINX,
        "ignore_invalid_headers off; underscores_in_headers on; merge_slashes off; proxy_request_buffering off;",
    ),
    "haproxy": ("haproxy", HAPROXY, ""),
    "haproxy, lenient": ("haproxy", HAPROXY, "option accept-invalid-http-request"),
}


class Proxy:
    """A proxy in front of a server; `async with` it."""

    def __init__(self, name: str, folder: Path, server: int) -> None:
        program, template, options = PROXIES[name]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.number = free.getsockname()[1]
        config = folder / "proxy.conf"
        config.write_text(template.format(folder=folder, options=options, server=server, listen=self.number))
        path = shutil.which(program)
        assert path is not None
        arguments = ["-p", str(folder), "-c", str(config)] if program == "nginx" else ["-db", "-f", str(config)]
        self._command = [path, *arguments]
        self._log = folder / "proxy.log"

    async def __aenter__(self) -> "Proxy":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)  # noqa: ASYNC220
        async with asyncio.timeout(10):
            while True:
                assert self._process.poll() is None, self._log.read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.number)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 10)


async def _through(number: int, message: bytes, seconds: float = 4.0) -> bytes:
    """Send a message and return what comes back until a close, or until nothing has come for `seconds`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    data = b""
    with suppress(OSError):  # TimeoutError is one, too
        async with asyncio.timeout(seconds):
            writer.write(message)
            writer.write_eof()
            while piece := await reader.read(65_536):
                data += piece
    writer.transport.abort()
    return data


@pytest.mark.parametrize("name", PROXIES)
def test_no_smuggled_request_reaches_the_face_behind_a_proxy(name: str, tmp_path: Path) -> None:
    if shutil.which(PROXIES[name][0]) is None:
        pytest.skip(f"{PROXIES[name][0]} is not installed (.ci/run installs it)")

    async def check(opened: Opened) -> None:
        async with Proxy(name, tmp_path, opened.number) as proxy:
            forwarded = 0
            for case in CASES:
                opened.echo.seen.clear()
                await _through(proxy.number, case.message if case.whole else case.message + SMUGGLED * 2)
                honest = post(INFER, case.name.encode(), "Connection: close")
                (reply,) = replies_in(await _through(proxy.number, honest))
                assert reply.echoed["body"] == case.name, "another caller's reply"
                *seen, last = opened.echo.seen
                assert last.body == case.name.encode()
                for request in seen:
                    mark = request.headers.get("x-through")
                    if request.refused is not None and mark is None:  # before its mark had been read
                        assert request.path == INFER
                        continue
                    assert mark is not None, f"{case.name}: {request.path} was smuggled"
                    assert unquote(urlsplit(mark).path) == request.path, f"{case.name}: read in another way"
                forwarded += len(seen)
            assert forwarded > 0, "the proxy lets nothing through, so that this shows nothing"

    on_port(check, seconds=300.0)
