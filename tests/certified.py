"""Certificates for tests, made by the openssl command."""

import subprocess
from pathlib import Path

from msgspec import Struct


class Certificate(Struct, frozen=True):
    """A self-signed certificate and its key; the certificate is also the CA that trusts it."""

    certificate: Path
    key: Path


def certified(folder: Path, name: str, subject: str = "IP:127.0.0.1") -> Certificate:
    """Make a certificate of its own for `name`, valid for `subject`, in `folder`."""
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}"]
    subprocess.run([*words, "-out", made.certificate, "-keyout", made.key], check=True, capture_output=True)
    return made
