"""Addresses of a gateway as people type them.

Belongs here: whether a text is a URL of ours, and whether it means this machine. Never here: connecting to it.
"""

import ipaddress
from urllib.parse import urlsplit

from gateway.cli.failures import Misuse


def check_url(url: str, option: str) -> str:
    """Return `url` without a slash at its end.

    Raises:
        Misuse: not `http(s)://host[:port]`; the message does not repeat what may hold a password.
    """
    advice = "Write for example http://127.0.0.1:8081."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Misuse(f"{option}: not a URL", advice) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Misuse(f"{option}: expected http:// or https:// and a host", advice)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Misuse(f"{option}: expected no user, password, query or fragment", advice)
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether a URL means this machine, so that no proxy of the environment may come between."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
