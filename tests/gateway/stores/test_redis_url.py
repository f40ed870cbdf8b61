"""The forms of `redis_url`."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SettingsError
from gateway.stores.redis_url import parse_redis_url

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@pytest.mark.parametrize(
    ("url", "where", "options"),
    [
        ("redis://", "localhost:6379", {"host": "localhost", "port": 6379, "db": 0}),
        ("redis://h", "h:6379", {"host": "h", "port": 6379, "db": 0}),
        ("redis://h:1/", "h:1", {"host": "h", "port": 1, "db": 0}),
        ("redis://h:1/3", "h:1", {"host": "h", "port": 1, "db": 3}),
        ("redis://h?db=3", "h:6379", {"host": "h", "port": 6379, "db": 3}),
        ("redis://[::1]:2/0", "::1:2", {"host": "::1", "port": 2, "db": 0}),
        ("redis://:pw@h", "h:6379", {"host": "h", "port": 6379, "db": 0, "password": "pw"}),
        ("redis://ann:p%40w@h", "h:6379", {"host": "h", "port": 6379, "db": 0, "username": "ann", "password": "p@w"}),
        ("unix:///run/r%20.sock", "/run/r .sock", {"path": "/run/r .sock", "db": 0}),
        ("unix://:pw@/r.sock?db=2", "/r.sock", {"path": "/r.sock", "db": 2, "password": "pw"}),
        ("rediss://h?ssl_check_hostname=false", "h:6379", {"host": "h", "port": 6379, "db": 0}),
    ],
)
def test_url_of_one_server_is_understood(url: str, where: str, options: dict[str, object]) -> None:
    address = parse_redis_url(url)
    assert address.where == where
    assert {name: value for name, value in address.options.items() if not name.startswith("ssl")} == options
    assert address.tls == url.startswith("rediss")
    assert address.sentinels is None


def test_sentinels_have_their_own_user_and_password_and_share_only_the_tls() -> None:
    address = parse_redis_url(
        "rediss+sentinel://ann:data@one,[::2]:7,three:8/my%20rules/4"
        "?sentinel_username=guard&sentinel_password=watch&ssl_check_hostname=no"
    )
    assert address.tls
    assert address.options == {"username": "ann", "password": "data", "db": 4, "ssl_check_hostname": False}
    assert address.sentinels is not None
    assert address.sentinels.service == "my rules"
    assert address.sentinels.places == (("one", 26_379), ("::2", 7), ("three", 8))
    assert address.sentinels.options == {"username": "guard", "password": "watch", "ssl_check_hostname": False}
    assert set(address.secrets) == {"data", "watch"}
    assert not any(secret in address.where for secret in address.secrets)


@given(user=words, password=words)
def test_user_and_password_come_back_when_they_were_percent_encoded(user: str, password: str) -> None:
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    for url in (f"redis://{credentials}@h/1", f"unix://{credentials}@/s", f"redis+sentinel://{credentials}@h,i/s"):
        address = parse_redis_url(url)
        assert (address.options["username"], address.options["password"]) == (user, password)
        assert address.secrets == (password,)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://:xyzzy@localhost",
        "REDIS://:xyzzy@localhost",
        "redis://:xy/xyzzy@localhost:6379",
        "redis://:xy?xyzzy@localhost:6379",
        "redis://:xy#xyzzy@localhost:6379",
        "redis://:s@localhost:port",
        "redis://localhost:0",
        "redis://localhost:65536",
        "redis://localhost:²",
        "redis://localhost/xyzzy",
        "redis://localhost?db=xyzzy",
        "redis://localhost?socket_timeout=1",
        "redis://localhost?protocol=3",
        "redis://localhost?ssl_ca_certs=/xyzzy",
        "redis://localhost?db=1&db=2",
        "redis://localhost?xyzzy",
        "rediss://localhost?ssl_check_hostname=off-xy",
        "rediss://localhost?ssl_check_hostname=",
        "rediss://localhost?ssl_cert_reqs=optional",
        "rediss://localhost?ssl_keyfile=/xy",
        "rediss://localhost?sentinel_password=xyzzy",
        "unix://",
        "unix:///",
        "unix://host/path",
        "redis+sentinel://one,two",
        "redis+sentinel://one,two/",
        "redis+sentinel://one:xy/rules",
        "redis+sentinel://one/rules/xyzzy",
    ],
)
def test_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^redis_url: ") as refused:
        parse_redis_url(url)
    assert "xy" not in str(refused.value)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
@pytest.mark.parametrize("content", [None, b"", b"what is this"], ids=["missing", "empty", "broken"])
def test_file_of_tls_that_cannot_be_used_is_refused_at_once(tmp_path: Path, option: str, content: bytes | None) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"redis_url: {option}: the file cannot be used"):
        parse_redis_url(f"rediss://h?{option}={quote(str(file))}")
