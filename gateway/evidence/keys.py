"""The gateway's key, which signs its checkpoints, and the public keys that verify them (Ed25519, RFC 8032).

    <data_dir>/keys/signing-key.pem   the private key (PKCS #8), made at the first start, readable by its owner only
    <data_dir>/keys/public-key.pem    the public one (SubjectPublicKeyInfo), to be handed out

A key's id is the first 16 hex digits of the SHA-256 of its raw public key (32 bytes).

Belongs here: making, reading, signing, verifying. Never here: what is signed, or which key is to be trusted.
"""

import re
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.errors import KeyUnusable
from gateway.evidence.small_files import sync_folder, write_whole

SIGNING_KEY = "signing-key.pem"
PUBLIC_KEY = "public-key.pem"
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_LONGEST_FILE = 2**20


class VerifyingKey:
    """A public key. Two are equal when they are the same key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self._raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = sha256(self._raw).hexdigest()[:16]

    @property
    def pem(self) -> str:
        """The key as PEM (SubjectPublicKeyInfo)."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Tell whether `signature` (64 bytes) was made over `signed` by this key's private half."""
        try:
            self._key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyingKey) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)


class SigningKey:
    """The private key of a gateway; `public` is the half that verifies."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = VerifyingKey(key.public_key())

    @property
    def id(self) -> str:
        """The id that both halves have."""
        return self.public.id

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`: 64 bytes."""
        return self._key.sign(data)

    def pem(self) -> bytes:
        """Return the private key as PEM (PKCS #8), not encrypted."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def open_key(folder: Path) -> SigningKey:
    """Return the key in `folder`, made there if there is none; the public half is put beside it.

    Raises:
        KeyUnusable: it cannot be read or written, is no Ed25519 key, or others may read it.
    """
    path = folder / SIGNING_KEY
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_whole(path, SigningKey.generate().pem())
            sync_folder(folder.parent)
        key = _read_signing_key(path)
        public = folder / PUBLIC_KEY
        if not public.exists() or public.read_text(encoding="ascii", errors="replace") != key.public.pem:
            write_whole(public, key.public.pem.encode())
    except OSError as error:
        raise KeyUnusable(f"the signing key {path} cannot be read or made: {error.strerror}") from None
    return key


def _read_signing_key(path: Path) -> SigningKey:
    if path.stat().st_mode & 0o077:
        raise KeyUnusable(f"the signing key {path} can be read by others than its owner; say chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnusable(
            f"{path} is no private key in PEM without a password; put the key back from a copy, "
            "or move the file away to begin with a new key"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is no Ed25519 key; put the key back from a copy, or move the file away")
    return SigningKey(key)


def parse_public_key(pem: str | bytes) -> VerifyingKey:
    """Return the key of one PEM block.

    Raises:
        KeyUnusable: it is no Ed25519 public key.
    """
    data = pem.encode("ascii", "replace") if isinstance(pem, str) else pem
    if b"PRIVATE KEY" in data:
        raise KeyUnusable(f"it is a private key, which nobody should be given; the public one is in {PUBLIC_KEY}")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("it is no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable("it is no Ed25519 key; checkpoints are signed with Ed25519")
    return VerifyingKey(key)


def read_public_keys(path: Path) -> tuple[VerifyingKey, ...]:
    """Return the keys of a PEM file, which may hold several, as when several gateways share a store.

    Raises:
        KeyUnusable: naming the file and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_FILE)
    except OSError as error:
        raise KeyUnusable(f"the public key {path} cannot be read: {error.strerror}") from None
    try:
        return parse_public_keys(data)
    except KeyUnusable as error:
        raise KeyUnusable(f"the public key {path} cannot be used: {error.message}") from None


def parse_public_keys(pem: str | bytes) -> tuple[VerifyingKey, ...]:
    """Return the keys of a text with one PEM block or several. Raises `KeyUnusable`."""
    data = pem.encode("ascii", "replace") if isinstance(pem, str) else pem
    return tuple(parse_public_key(block[0]) for block in _PEM_BLOCK.finditer(data)) or (parse_public_key(data),)
