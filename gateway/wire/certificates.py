"""TLS of the data port: what it shows, whom it trusts, and when the files of both have changed.

Belongs here: files to contexts. Never here: listening, or what is said over a connection.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from gateway.config import TlsSettings
from gateway.errors import SettingsError
from gateway.logs import logger

_Seen = Mapping[str, tuple[int, int, int] | None]


class Certificates:
    """The certificate, its key, and the CA of client certificates. `context` is what new connections get."""

    def __init__(self, settings: TlsSettings) -> None:
        """Raises `SettingsError`, naming the setting, when a file cannot be used."""
        self._files = {name: path for name, path in settings if path is not None}
        self._seen = self._look()
        self.context = server_context(settings)
        self._settings = settings

    def changed(self) -> bool:
        """Look at the files; return True when they have changed and `context` is a new one.

        Files that cannot be used (half written, say, or a key that fits no longer) leave the old context in force; one
        log line says why, and every further change of the files is another chance.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.context = server_context(self._settings)
        except SettingsError as error:
            logger().warning("certificates_not_changed", why=error.message)
            return False
        logger().info("certificates_changed", files=[str(path) for path in self._files.values()])
        return True

    def _look(self) -> _Seen:
        return {name: _identity(path) for name, path in self._files.items()}


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context for `tls.cert` and `tls.key` that asks for client certificates when `tls.client_ca` is set.

    Raises:
        SettingsError: naming the setting and its file.
    """
    assert settings.cert is not None
    assert settings.key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _readable("tls.cert", settings.cert)
    _readable("tls.key", settings.key)
    try:
        context.load_cert_chain(settings.cert, settings.key, password=_refuse_encrypted)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"tls.cert, tls.key: {settings.cert} and {settings.key} are no certificate chain in PEM and its key, "
            f"without a passphrase: {_words(error)}"
        ) from None
    if settings.client_ca is not None:
        _readable("tls.client_ca", settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.client_ca)
        except ssl.SSLError as error:
            raise SettingsError(f"tls.client_ca: {settings.client_ca} is no PEM file of CAs: {_words(error)}") from None
    return context


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written or replaced, also through a symlink; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _readable(setting: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror}") from None


def _refuse_encrypted() -> str:
    # Without this, OpenSSL asks whoever sits at the terminal, and a server waits for an answer for ever.
    return ""


def _words(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
