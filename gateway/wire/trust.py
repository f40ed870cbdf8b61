"""Whom a gateway trusts among https backends, and what it shows them when they ask who it is.

Belongs here: TLS contexts of outgoing connections. Never here: connections.
"""

import ssl
from pathlib import Path

from gateway.errors import SettingsError


def trust(ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a context that verifies certificates and host names, and from TLS 1.2 on.

    `ca` is a PEM file of authorities in place of the system's; `cert` one with the gateway's own certificate and those
    that lead to its authority; `key` its key, when that is not in the same file. They are read once.

    Raises:
        SettingsError: a file cannot be read, or is none of what it should be; the message names the setting.
    """
    if key is not None and cert is None:
        raise SettingsError("upstream.tls_key: a key without its certificate; name that in upstream.tls_cert")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SettingsError(f"upstream.tls_ca: {ca} holds no certificates in PEM: {_why(error)}") from None
    context.set_alpn_protocols(["http/1.1"])
    if cert is None:
        return context
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except (OSError, ValueError) as error:
        files = f"{cert} and {key} hold" if key is not None else f"{cert} holds"
        names = "upstream.tls_cert, upstream.tls_key" if key is not None else "upstream.tls_cert"
        raise SettingsError(f"{names}: {files} no certificate with its key in PEM: {_why(error)}") from None
    return context


def _refuse_password() -> str:
    # Without this, OpenSSL asks for one on the terminal, where a gateway has nobody to answer.
    raise ValueError("the key is encrypted, and there is nowhere to take a password from")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return str(error.strerror if isinstance(error, OSError) else error)
