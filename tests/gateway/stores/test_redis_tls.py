"""TLS to the rules store, through a real listener in front of a real server (whose binary has no TLS)."""

import asyncio
import shutil
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.errors import RulesUnavailable
from gateway.ports import ChangeSet, Write
from gateway.stores.rules_redis import RedisRules
from tests.certified import Certificate, certified
from tests.conftest import RunningValkey
from tests.gateway.stores.relay import Relay
from tests.gateway.stores.telling import Telling

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command for certificates")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certified(tmp_path_factory.mktemp("tls"), "server")


def listening_with(one: Certificate, clients: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(one.certificate, one.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.certificate)
    return context


def through_tls(
    valkey: RunningValkey,
    context: ssl.SSLContext | None,
    options: str,
    scenario: Callable[[RedisRules], Awaitable[None]],
    scheme: str = "rediss",
) -> None:
    async def whole() -> None:
        async with Relay(valkey.socket, tls=context).running() as relay:
            store = RedisRules(f"{scheme}://127.0.0.1:{relay.port}/0?{options}")
            try:
                await scenario(store)
            finally:
                await store.close()

    asyncio.run(whole())


async def everything_works(store: RedisRules) -> None:
    assert (await store.initialise()).revision == 0
    listening = store.notices()
    await anext(listening)
    assert await store.apply(ChangeSet("op", "ann", "", 1, (Write("route", "fraud", b"{}", 0),))) == 1
    async with asyncio.timeout(10):
        await anext(listening)
    await listening.aclose()


def test_rules_are_read_and_changed_over_tls(valkey: RunningValkey, server: Certificate) -> None:
    through_tls(valkey, listening_with(server), f"ssl_ca_certs={server.certificate}", everything_works)


def test_server_whose_ca_is_not_the_one_named_is_refused(
    valkey: RunningValkey, server: Certificate, tmp_path: Path
) -> None:
    other = certified(tmp_path, "other")

    async def scenario(store: RedisRules) -> None:
        for call in (store.initialise(), anext(store.notices())):
            with pytest.raises(RulesUnavailable, match=r"a certificate that is not trusted.*ssl_ca_certs"):
                await call

    through_tls(valkey, listening_with(server), f"ssl_ca_certs={other.certificate}", scenario)
    assert valkey.command("DBSIZE") == b":0\r\n"


def test_certificate_is_verified_when_the_url_says_nothing(valkey: RunningValkey, server: Certificate) -> None:
    async def scenario(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match="not trusted"):
            await store.initialise()

    through_tls(valkey, listening_with(server), "", scenario)


def test_certificate_of_another_host_is_refused_unless_the_url_says_so(valkey: RunningValkey, tmp_path: Path) -> None:
    elsewhere = certified(tmp_path, "elsewhere", "DNS:elsewhere")
    trusting = f"ssl_ca_certs={elsewhere.certificate}"

    async def refused(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match=r"not valid for '127\.0\.0\.1'"):
            await store.initialise()

    through_tls(valkey, listening_with(elsewhere), trusting, refused)
    through_tls(valkey, listening_with(elsewhere), f"{trusting}&ssl_check_hostname=false", everything_works)


def test_server_that_asks_for_a_certificate_gets_the_one_named(
    valkey: RunningValkey, server: Certificate, tmp_path: Path
) -> None:
    client = certified(tmp_path, "client")
    trusting = f"ssl_ca_certs={server.certificate}"

    async def refused(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match="does not answer"):
            await store.initialise()

    through_tls(valkey, listening_with(server, client), trusting, refused)
    named = f"{trusting}&ssl_certfile={client.certificate}&ssl_keyfile={client.key}"
    through_tls(valkey, listening_with(server, client), named, everything_works)


def test_server_that_speaks_no_tls_is_unavailable_to_a_url_with_tls(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match="does not answer"):
            await store.initialise()

    through_tls(valkey, None, "", scenario)


def test_server_that_speaks_tls_is_unavailable_to_a_url_without(valkey: RunningValkey, server: Certificate) -> None:
    async def scenario(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match="does not answer"):
            await store.initialise()

    through_tls(valkey, listening_with(server), "", scenario, scheme="redis")


def test_tls_goes_to_the_sentinels_and_to_the_primary(valkey: RunningValkey, server: Certificate) -> None:
    async def scenario() -> None:
        async with (
            Relay(valkey.socket, tls=listening_with(server)).running() as relay,
            Telling(relay.port, tls=listening_with(server)).running() as telling,
        ):
            url = f"rediss+sentinel://127.0.0.1:{telling.port}/rules"
            store = RedisRules(f"{url}?ssl_ca_certs={server.certificate}")
            await everything_works(store)
            await store.close()
            distrusting = RedisRules(url)
            with pytest.raises(RulesUnavailable, match="a certificate that is not trusted"):
                await distrusting.head()
            await distrusting.close()

    asyncio.run(scenario())
