"""TLS of the data port: certificates of both sides, and files that change under open connections."""

import asyncio
import os
import shutil
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.config import TlsSettings
from gateway.errors import SettingsError
from gateway.wire.certificates import Certificates, server_context
from tests.certified import Certificate, certified
from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Opened, get, on_port, post, replies_in

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command for certificates")

CLOSE = "Connection: close"


@pytest.fixture
def server(tmp_path: Path) -> Certificate:
    return certified(tmp_path, "server")


def settings_of(server: Certificate, clients: Certificate | None = None) -> TlsSettings:
    return TlsSettings(
        cert=server.certificate, key=server.key, client_ca=None if clients is None else clients.certificate
    )


def trusting(server: Certificate, own: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(server.certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


async def tell_tls(number: int, message: bytes, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", number, ssl=context)
    try:
        writer.write(message)
        return await reader.read()
    finally:
        writer.close()


async def served(opened: Opened, server: Certificate, own: Certificate | None) -> bool:
    """Tell whether a caller with a certificate of its own gets an answer, or none at all."""
    try:
        return bool(await tell_tls(opened.number, get(INFER, CLOSE), trusting(server, own)))
    except (ssl.SSLError, ConnectionError):
        return False


def test_requests_are_served_over_tls_and_everything_ends_as_without_it(server: Certificate) -> None:
    async def check(opened: Opened) -> None:
        context = trusting(server)
        large = "/v2/models/m/large/infer"
        stream = post(INFER, b"1") + get("/v2/health/live") + get(large) + post(INFER, b"2", CLOSE)
        one, live, much, two = replies_in(await tell_tls(opened.number, stream, context))
        assert (one.echoed["body"], two.echoed["body"], len(much.body)) == ("1", "2", 4 * 2**20)
        assert live.echoed["path"] == "/v2/health/live"
        (refused,) = replies_in(await tell_tls(opened.number, b"nonsense\r\n\r\n" + get(INFER), context))
        assert (refused.status, refused.headers["connection"]) == (400, "close")
        (too_large,) = replies_in(await tell_tls(opened.number, post(INFER, b"a" * 70_000), context))
        assert too_large.status == 413

    on_port(check, tls=settings_of(server))


def test_the_protocol_agreed_upon_is_http_1_1_and_old_tls_is_refused(server: Certificate) -> None:
    async def check(opened: Opened) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.number, ssl=trusting(server))
        agreed = writer.get_extra_info("ssl_object")
        assert (agreed.selected_alpn_protocol(), agreed.version()) == ("http/1.1", "TLSv1.3")
        writer.close()
        await until(lambda: not opened.port.connections)

    on_port(check, tls=settings_of(server))
    assert server_context(settings_of(server)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_caller_that_speaks_no_tls_or_never_ends_its_handshake_is_closed(server: Certificate) -> None:
    async def check(opened: Opened) -> None:
        for first in (b"", get(INFER)):
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
            writer.write(first)
            async with asyncio.timeout(20):
                assert b"HTTP" not in await reader.read()
            writer.close()
        assert opened.echo.seen == []

    on_port(check, tls=settings_of(server), head_seconds=0.5)


def test_a_handshake_that_is_not_at_its_end_when_the_port_closes_is_cut_off(server: Certificate) -> None:
    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        assert await served(opened, server, None)  # so the one before has been accepted
        opened.stop.set()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        await opened.serving
        writer.close()

    on_port(check, tls=settings_of(server))


def test_only_callers_with_a_certificate_of_the_ca_are_served(server: Certificate, tmp_path: Path) -> None:
    client, stranger = certified(tmp_path, "client"), certified(tmp_path, "stranger")

    async def check(opened: Opened) -> None:
        assert [await served(opened, server, own) for own in (client, None, stranger)] == [True, False, False]
        assert len(opened.echo.seen) == 1

    on_port(check, tls=settings_of(server, client))


def replace(present: Certificate, new: Certificate) -> None:
    """Put other files in the place of a certificate and its key, as a tool that renews them does."""
    new.certificate.replace(present.certificate)
    new.key.replace(present.key)


async def shown_to(number: int) -> bytes:
    """Return the certificate that a new connection is shown, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", number, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    assert isinstance(shown, bytes)
    return shown


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())


async def shows(number: int, wanted: bytes) -> None:
    async with asyncio.timeout(20):
        while await shown_to(number) != wanted:  # noqa: ASYNC110 - only a new connection tells
            await asyncio.sleep(0.05)


def test_new_connections_get_a_certificate_that_was_replaced_and_open_ones_go_on(
    server: Certificate, tmp_path: Path
) -> None:
    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number, ssl=trusting(server))
        _, waiting = await asyncio.open_connection("127.0.0.1", opened.number, ssl=trusting(server))
        waiting.write(get("/v2/models/m/wait/infer"))
        await until(lambda: opened.echo.seen)
        before = der(server)
        failed: list[Exception] = []
        over = asyncio.Event()

        async def ask_on() -> None:
            while not over.is_set():
                try:
                    await shown_to(opened.number)
                except OSError as error:
                    failed.append(error)

        asking = asyncio.create_task(ask_on())
        renewed = certified(tmp_path, "renewed")
        after = der(renewed)
        assert before != after
        replace(server, renewed)
        await shows(opened.number, after)
        over.set()
        await asking
        assert failed == []
        writer.write(get(INFER, CLOSE))
        (reply,) = replies_in(await reader.read())
        assert reply.status == 200
        assert opened.echo.ended == []
        waiting.close()

    on_port(check, tls=settings_of(server))


def test_callers_of_a_ca_that_was_replaced_are_refused_and_those_of_the_new_one_served(
    server: Certificate, tmp_path: Path
) -> None:
    client, other = certified(tmp_path, "client"), certified(tmp_path, "other")
    ca = Certificate(tmp_path / "ca.crt", client.key)
    shutil.copy(client.certificate, ca.certificate)

    async def check(opened: Opened) -> None:
        assert [await served(opened, server, own) for own in (client, other)] == [True, False]
        shutil.copy(other.certificate, ca.certificate)
        async with asyncio.timeout(20):
            while not await served(opened, server, other):  # noqa: ASYNC110 - only a new connection tells
                await asyncio.sleep(0.05)
        assert not await served(opened, server, client)

    on_port(check, tls=settings_of(server, ca))


def test_files_that_cannot_be_used_leave_the_old_certificate_in_force(
    server: Certificate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    certificates = Certificates(settings_of(server))
    before = certificates.context
    assert not certificates.changed()
    renewed = certified(tmp_path, "renewed")
    renewed.certificate.replace(server.certificate)
    assert not certificates.changed()  # the key is still the old one
    server.key.unlink()
    assert not certificates.changed()
    assert not certificates.changed()
    assert certificates.context is before
    assert capfd.readouterr().out.count("certificates_not_changed") == 2
    renewed.key.replace(server.key)
    assert certificates.changed()
    assert certificates.context is not before
    assert not certificates.changed()


def test_files_behind_a_symlink_that_moves_are_seen_to_change(server: Certificate, tmp_path: Path) -> None:
    renewed = certified(tmp_path, "renewed")
    links = Certificate(tmp_path / "now.crt", tmp_path / "now.key")
    links.certificate.symlink_to(server.certificate)
    links.key.symlink_to(server.key)
    certificates = Certificates(settings_of(links))
    for link, target in ((links.certificate, renewed.certificate), (links.key, renewed.key)):
        link.unlink()
        link.symlink_to(target)
    assert certificates.changed()


def test_files_that_cannot_be_used_at_the_start_are_named(server: Certificate, tmp_path: Path) -> None:
    other, missing = certified(tmp_path, "other"), tmp_path / "missing"
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    encrypted = tmp_path / "encrypted.key"
    command = f"openssl ec -in {server.key} -aes256 -passout pass:secret -out {encrypted} 2>/dev/null"
    assert os.system(command) == 0
    for cert, key, ca, words in (
        (missing, server.key, None, "tls.cert: cannot read .*No such file"),
        (server.certificate, missing, None, "tls.key: cannot read .*No such file"),
        (server.certificate, other.key, None, "tls.cert, tls.key: .*(?i:mismatch)"),
        (nonsense, server.key, None, "tls.cert, tls.key: "),
        (server.certificate, encrypted, None, "tls.cert, tls.key: .*without a passphrase"),
        (server.certificate, server.key, missing, "tls.client_ca: cannot read .*No such file"),
        (server.certificate, server.key, nonsense, "tls.client_ca: .* is no PEM file of CAs"),
    ):
        with pytest.raises(SettingsError, match=words):
            Certificates(TlsSettings(cert=cert, key=key, client_ca=ca))
