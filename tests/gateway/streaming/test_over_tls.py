"""Streams to callers over TLS, where an end that was meant differs from others by more than the last chunk."""

import shutil
import ssl
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.config import TlsSettings
from tests.certified import certified
from tests.gateway.streaming.world import Check, World, on_world

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command for certificates")


def on_tls(folder: Path, check: Check) -> None:
    made = certified(folder, "server")
    on_world(folder, check, tls=TlsSettings(cert=made.certificate, key=made.key))


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "server.crt"))


def test_each_piece_is_with_the_caller_before_the_next_is_sent(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.connect(tls=trusting(tmp_path))
        for _ in range(2):
            call.ask()
            answering = await world.backends["1"].next()
            answering.begin()
            await call.head()
            await call.in_step(answering, 10)
            answering.end()
            assert await call.piece() == b""
        assert {record.streamed for record in world.kept.records} == {"complete"}

    on_tls(tmp_path, check)


def test_a_caller_that_reads_slowly_makes_the_backend_wait_and_gets_everything(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.connect(tls=trusting(tmp_path))
        call.ask()
        answering = await world.backends["1"].next()
        answering.begin()
        await call.head()
        for _ in range(512):
            answering.send(b"x" * 65_536)
        answering.write(b"0\r\n\r\n")
        body = await call.rest()
        assert body == b"x" * 65_536 * 512
        record = await world.record()
        assert record.response.size == len(body)
        assert world.response().sha256 == sha256(body).hexdigest()

    on_tls(tmp_path, check)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stream_that_breaks_off_does_not_end_as_a_whole_one_does(tmp_path: Path, version: str) -> None:
    async def check(world: World) -> None:
        call = await world.connect(tls=trusting(tmp_path))
        call.ask(version=version)
        answering = await world.backends["1"].next()
        answering.begin()
        await call.head()
        answering.send(b"data: 1\n\n")
        if version == "1.1":
            assert await call.piece() == b"data: 1\n\n"
            answering.cut()
            assert await call.pieces_until_cut() == b""
        else:
            assert await call.reader.readexactly(9) == b"data: 1\n\n"
            answering.cut()
            with pytest.raises(ConnectionResetError):
                await call.all_that_comes()
        assert (await world.record()).streamed == "broken_off"

    on_tls(tmp_path, check)
