"""https backends: whom the client trusts, what it shows them, and what it says when that does not fit."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from msgspec import Struct

from gateway.assembly import upstream_client
from gateway.config import load_settings
from gateway.errors import BackendUnreachable, SettingsError
from gateway.wire.trust import trust
from tests.gateway.wire.backends import (
    Server,
    hang,
    keep_answering,
    make_client,
    open_sockets,
    read_request,
    send,
    stream,
    until,
)
from tests.gateway.wire.conftest import Run

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command for certificates")

SOME = b"HTTP/1.1 200 OK\r\n\r\nsome"


class Certificate(Struct, frozen=True):
    """A self-signed certificate and its key; the certificate is also the CA that trusts it."""

    certificate: Path
    key: Path


def certified(folder: Path, name: str, subject: str = "IP:127.0.0.1") -> Certificate:
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}"]
    subprocess.run([*words, "-out", made.certificate, "-keyout", made.key], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def server(folder: Path) -> Certificate:
    return certified(folder, "server")


@pytest.fixture(scope="module")
def client(folder: Path) -> Certificate:
    return certified(folder, "client")


def listening_with(one: Certificate, clients: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(one.certificate, one.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.certificate)
    return context


def test_requests_go_over_tls_and_their_connection_is_used_again(run: Run, server: Certificate) -> None:
    async def work() -> None:
        before = open_sockets()
        caller = make_client(tls=trust(server.certificate))
        async with Server(keep_answering, tls=listening_with(server)) as backend:
            for _ in range(5):
                assert (await send(caller, backend.url, body=b"x" * 300_000)).body == b"ok"
            assert backend.connections == 1
            async with stream(caller, backend.url) as answer:
                assert [part async for part in answer] == [b"ok"]
            await caller.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_backend_is_told_the_name_and_the_protocol_it_is_called_by(run: Run, folder: Path) -> None:
    named = certified(folder, "localhost", "DNS:localhost")
    told: list[str | None] = []

    def tell(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        told.append(name)

    async def work() -> None:
        context = listening_with(named)
        context.sni_callback = tell
        context.set_alpn_protocols(["h2", "http/1.1"])
        caller = make_client(tls=trust(named.certificate))
        async with Server(keep_answering, tls=context) as backend:
            assert (await send(caller, f"https://localhost:{backend.port}")).body == b"ok"
        await caller.close()
        assert told == ["localhost"]

    run(work())


def test_backend_whose_authority_is_not_the_one_named_is_not_trusted(
    run: Run, server: Certificate, client: Certificate
) -> None:
    async def work() -> None:
        before = open_sockets()
        for trusted in (trust(), trust(client.certificate)):
            caller = make_client(tls=trusted)
            async with Server(keep_answering, tls=listening_with(server)) as backend:
                with pytest.raises(BackendUnreachable, match="its certificate is not trusted: self-signed") as refused:
                    await send(caller, backend.url)
                assert refused.value.backend == backend.url
            await caller.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_backend_whose_certificate_is_for_another_name_is_not_trusted(run: Run, folder: Path) -> None:
    elsewhere = certified(folder, "elsewhere", "DNS:elsewhere")

    async def work() -> None:
        caller = make_client(tls=trust(elsewhere.certificate))
        async with Server(keep_answering, tls=listening_with(elsewhere)) as backend:
            with pytest.raises(BackendUnreachable, match="not trusted: IP address mismatch"):
                await send(caller, backend.url)
        await caller.close()

    run(work())


def test_backend_that_asks_for_a_certificate_gets_the_one_named(
    run: Run, server: Certificate, client: Certificate, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(client.certificate.read_bytes() + client.key.read_bytes())

    async def work() -> None:
        async with Server(keep_answering, tls=listening_with(server, client)) as backend:
            for named in ((client.certificate, client.key), (both, None)):
                caller = make_client(tls=trust(server.certificate, *named))
                assert (await send(caller, backend.url)).body == b"ok"
                await caller.close()

    run(work())


@contextmanager
def asking(server: Certificate, clients: Certificate, version: ssl.TLSVersion) -> Iterator[str]:
    """A backend in a thread that asks its one caller for a certificate and says so when it gets none.

    It uses blocking sockets, since asyncio's end of TLS closes without the alert that tells why.
    """
    context = listening_with(server, clients)
    context.maximum_version = version
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True):
            pytest.fail("the caller has no certificate")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (ssl.TLSVersion.TLSv1_2, r"(?i)handshake.failure"),
        # Here the client's end of the handshake is over before the refusal comes, and what it sends by then is answered
        # with a reset, which may overtake the reason.
        (ssl.TLSVersion.TLSv1_3, r"(?i)certificate.required|before its whole answer"),
    ],
)
def test_backend_that_asks_for_a_certificate_and_gets_none_is_unreachable(
    run: Run, server: Certificate, client: Certificate, version: ssl.TLSVersion, says: str
) -> None:
    async def work() -> None:
        before = open_sockets()
        caller = make_client(tls=trust(server.certificate))
        with asking(server, client, version) as url:
            with pytest.raises(BackendUnreachable, match=says) as refused:
                await send(caller, url)
            assert refused.value.backend == url
            await caller.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_older_tls_is_not_spoken(run: Run, server: Certificate) -> None:
    async def work() -> None:
        old = listening_with(server)
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        caller = make_client(tls=trust(server.certificate))
        async with Server(keep_answering, tls=old) as backend:
            with pytest.raises(BackendUnreachable, match="no connection to"):
                await send(caller, backend.url)
        await caller.close()

    run(work())


def test_backend_without_tls_is_unreachable_by_https_and_one_with_it_by_http(run: Run, server: Certificate) -> None:
    async def answer_anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(SOME)
        await reader.read()

    async def work() -> None:
        before = open_sockets()
        caller = make_client(tls=trust(server.certificate))
        async with Server(answer_anything) as plain:
            with pytest.raises(BackendUnreachable, match="no TLS: "):
                await send(caller, plain.url.replace("http:", "https:"))
        async with Server(keep_answering, tls=listening_with(server)) as secret:
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                await send(caller, secret.url.replace("https:", "http:"))
        await caller.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_backend_that_accepts_but_never_shakes_hands_is_unreachable_after_the_connect_timeout(
    run: Run, server: Certificate
) -> None:
    async def work() -> None:
        before = open_sockets()
        caller = make_client(tls=trust(server.certificate), connect_timeout_ms=100)
        async with Server(hang) as backend:
            listening = open_sockets()
            attempts = [send(caller, backend.url.replace("http:", "https:")) for _ in range(5)]
            ends = await asyncio.gather(*attempts, return_exceptions=True)
            assert {type(end) for end in ends} == {BackendUnreachable}
            assert all("within 100 ms" in str(end) for end in ends)
            await until(lambda: open_sockets() <= listening, "sockets of handshakes are left")
        await caller.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_handshakes_that_nobody_waits_for_leave_nothing_when_the_client_is_closed(
    run: Run, server: Certificate
) -> None:
    async def work() -> None:
        before = open_sockets()
        async with Server(keep_answering, tls=listening_with(server)) as backend:
            listening = open_sockets()
            for steps in range(30):
                caller = make_client(tls=trust(server.certificate))
                request = asyncio.create_task(send(caller, backend.url))
                for _ in range(steps):
                    await asyncio.sleep(0)
                request.cancel()
                await asyncio.wait([request])
                await caller.close()
            await until(lambda: open_sockets() <= listening, "sockets of handshakes are left")
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_answer_without_length_over_tls_is_whole_only_if_the_backend_said_goodbye(
    run: Run, server: Certificate, says_goodbye: bool
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SOME)
        await writer.drain()
        if not says_goodbye:  # as somebody does who cuts the connection to have the rest not seen
            await written.wait()
            writer.transport.abort()

    async def work() -> None:
        caller = make_client(tls=trust(server.certificate))
        async with Server(script, tls=listening_with(server)) as backend, stream(caller, backend.url) as answer:
            parts = aiter(answer)
            assert await anext(parts) == b"some"
            written.set()
            with pytest.raises(StopAsyncIteration if says_goodbye else BackendUnreachable):
                await anext(parts)
        await caller.close()

    written = asyncio.Event()
    run(work())


def test_idle_connection_over_tls_is_closed_when_its_time_is_over(run: Run, server: Certificate) -> None:
    async def work() -> None:
        before = open_sockets()
        caller = make_client(tls=trust(server.certificate), keepalive_seconds=0.05)
        async with Server(keep_answering, tls=listening_with(server)) as backend:
            listening = open_sockets()
            await send(caller, backend.url)
            await until(lambda: backend.closed == 1, "the idle connection is still open")
            await until(lambda: open_sockets() <= listening, "a socket is left")
        await caller.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_certificates_named_in_settings_are_used(run: Run, server: Certificate, client: Certificate) -> None:
    named = {"tls_ca": server.certificate, "tls_cert": client.certificate, "tls_key": client.key}

    async def work() -> None:
        caller = upstream_client(load_settings({"upstream": named}))
        async with Server(keep_answering, tls=listening_with(server, client)) as backend:
            assert (await send(caller, backend.url)).body == b"ok"
        await caller.close()

    run(work())


def test_file_that_is_not_what_it_should_be_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, server: Certificate, client: Certificate
) -> None:
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("no certificate\n")
    encrypted = tmp_path / "encrypted.key"
    words = ["openssl", "pkey", "-aes256", "-passout", "pass:secret"]
    subprocess.run([*words, "-in", client.key, "-out", encrypted], check=True, capture_output=True)
    for files, says in (
        ((missing,), "upstream.tls_ca: .*No such file"),
        ((text,), "upstream.tls_ca: .*no certificate"),
        ((tmp_path,), "upstream.tls_ca: .*directory"),
        ((None, missing), "upstream.tls_cert: .*No such file"),
        ((None, text), "upstream.tls_cert: "),
        ((None, client.certificate), "upstream.tls_cert: "),
        ((None, client.certificate, missing), "upstream.tls_cert, upstream.tls_key: .*No such file"),
        ((None, client.certificate, server.key), "upstream.tls_cert, upstream.tls_key: .*mismatch"),
        (
            (None, client.certificate, encrypted),
            "upstream.tls_cert, upstream.tls_key: .*nowhere to take a password from",
        ),
        ((None, None, client.key), "upstream.tls_key: a key without its certificate"),
    ):
        with pytest.raises(SettingsError, match=says):
            trust(*files)
