"""Sockets that listen: several of one address, and none where somebody else listens already."""

import socket

import pytest

from gateway.errors import SettingsError
from gateway.wire.listening import bind, bind_for_each, url_of

HOSTS = ["127.0.0.1", "localhost", "::1"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", HOSTS)
def test_all_of_them_listen_on_the_address_that_the_first_was_given(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    opened = bind_for_each(3, host, 0, "port")
    assert len({one.getsockname() for one in opened}) == 1
    assert len({one.fileno() for one in opened}) == 3
    assert url_of(opened[0]) == f"http://{'[::1]' if ':' in host else '127.0.0.1'}:{opened[0].getsockname()[1]}"
    connections = [socket.create_connection(opened[0].getsockname()[:2]) for _ in range(10)]
    for one in (*connections, *opened):
        one.close()


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_where_another_gateway_listens_is_refused_naming_the_setting(count: int) -> None:
    others = bind_for_each(count, "127.0.0.1", 0, "port")
    number = others[0].getsockname()[1]
    for refused in (lambda: bind_for_each(2, "127.0.0.1", number, "port"), lambda: bind("127.0.0.1", number, "port")):
        with pytest.raises(SettingsError, match=f"port: cannot listen on 127.0.0.1:{number}: .* choose another"):
            refused()
    for one in others:
        one.close()
    for one in bind_for_each(2, "127.0.0.1", number, "port"):
        one.close()


def test_a_port_where_anything_else_listens_is_refused_naming_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SettingsError, match="port: cannot listen"):
        bind_for_each(2, "127.0.0.1", other.getsockname()[1], "port")


def test_a_name_that_is_none_is_refused_naming_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"port: cannot use nowhere\.invalid:0: "):
        bind_for_each(2, "nowhere.invalid", 0, "port")
