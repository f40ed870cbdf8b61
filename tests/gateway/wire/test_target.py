"""What a request begins with: where it goes, what it is asked for, and how its body is framed."""

import pytest

from gateway import __version__
from gateway.errors import BackendUnreachable
from gateway.wire.target import Origin, encode_head, parse_target


def lines(method: str, url: str, length: int | None = 0) -> list[str]:
    return encode_head(parse_target(method, url), (), length).decode("latin-1").split("\r\n")


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("http://a.example", Origin("http://a.example", "a.example", 80, tls=False), "a.example"),
        ("http://A.example:80/", Origin("http://A.example:80", "a.example", 80, tls=False), "a.example"),
        ("https://a.example", Origin("https://a.example", "a.example", 443, tls=True), "a.example"),
        ("https://a.example:8443", Origin("https://a.example:8443", "a.example", 8443, tls=True), "a.example:8443"),
        ("https://a.example:80", Origin("https://a.example:80", "a.example", 80, tls=True), "a.example:80"),
        ("http://[::1]:8080/v2", Origin("http://[::1]:8080", "::1", 8080, tls=False), "[::1]:8080"),
    ],
)
def test_origin_and_host_are_those_of_the_url(url: str, origin: Origin, host: str) -> None:
    assert parse_target("GET", url).origin == origin
    assert f"host: {host}" in lines("GET", url)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/"),
        ("/v2/models/fraud/versions/1.0_a-b/infer", "/v2/models/fraud/versions/1.0_a-b/infer"),
        ("/a%20b%2Fc", "/a%20b%2Fc"),
        ("/a b", "/a%20b"),
        ("/å", "/%C3%A5"),
        ("/a\x00b\x7f", "/a%00b%7F"),
        ("/a?b=c&d=é#fragment", "/a?b=c&d=%C3%A9"),
    ],
)
def test_request_line_holds_nothing_that_would_end_it(path: str, asked: str) -> None:
    assert lines("GET", f"http://a.example{path}")[0] == f"GET {asked} HTTP/1.1"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "a.example/",
        "http:///v2",
        "http://a.example:0/",
        "http://a.example:65536/",
        "http://a.example:port/",
        "http://å.example/",
        "http://[::1/",
        "",
    ],
)
def test_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(BackendUnreachable, match="no URL that can be called"):
        parse_target("GET", url)


def test_url_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(BackendUnreachable, match="user name or password") as refused:
        parse_target("GET", "http://user:secret@a.example/")
    assert "secret" not in refused.value.message + refused.value.backend


def test_body_is_framed_by_its_length_or_in_chunks() -> None:
    def framing(method: str, length: int | None) -> list[str]:
        own = {f"user-agent: pointsman/{__version__}", "accept-encoding: identity", "host: a.example", ""}
        return [line for line in lines(method, "http://a.example", length)[1:] if line not in own]

    assert framing("POST", 7) == ["content-length: 7"]
    assert framing("GET", 7) == ["content-length: 7"]
    assert framing("POST", 0) == framing("PUT", 0) == framing("PATCH", 0) == ["content-length: 0"]
    assert framing("GET", 0) == framing("HEAD", 0) == framing("DELETE", 0) == []
    assert framing("POST", None) == ["transfer-encoding: chunked"]


def test_header_that_cannot_be_sent_is_refused() -> None:
    target = parse_target("GET", "http://a.example")
    for header in (("x", "a\nb"), ("x", "a\r\nb: c"), ("x\r\ny", "a"), ("x", "\0"), ("x", "→")):
        with pytest.raises(ValueError, match=r"line end or NUL|latin-1"):
            encode_head(target, (header,), 0)
