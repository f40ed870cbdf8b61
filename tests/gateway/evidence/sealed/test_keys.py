"""The gateway's key: made once, kept from others, read back, and clear words for files that are none."""

import os
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.errors import KeyUnusable
from gateway.evidence.keys import PUBLIC_KEY, SIGNING_KEY, SigningKey, open_key, parse_public_key, read_public_keys

SECRET = b"correct horse"


def test_a_key_is_made_at_the_first_start_and_read_at_the_next(tmp_path: Path) -> None:
    first = open_key(tmp_path / "data" / "keys")
    second = open_key(tmp_path / "data" / "keys")

    assert (first.id, first.public) == (second.id, second.public)
    assert first.public.verifies(second.sign(b"said"), b"said")


def test_only_the_owner_can_read_the_key_and_nothing_else_is_left_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    before = os.umask(0)
    try:
        open_key(folder)
    finally:
        os.umask(before)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        SIGNING_KEY: 0o600,
        PUBLIC_KEY: 0o600,
    }


def test_the_public_key_beside_it_is_put_back_when_it_is_gone_or_another(tmp_path: Path) -> None:
    key = open_key(tmp_path)
    public = tmp_path / PUBLIC_KEY
    public.unlink()
    open_key(tmp_path)
    assert read_public_keys(public) == (key.public,)

    public.write_text(SigningKey.generate().public.pem)
    open_key(tmp_path)
    assert read_public_keys(public) == (key.public,)


def test_the_id_is_the_start_of_the_digest_of_the_raw_public_key(tmp_path: Path) -> None:
    key = open_key(tmp_path)
    public = load_pem_public_key((tmp_path / PUBLIC_KEY).read_bytes())

    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert key.id == key.public.id == sha256(raw).hexdigest()[:16]


def test_a_signature_holds_for_its_bytes_and_its_key_alone() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"said")

    assert key.public.verifies(signature, b"said")
    assert not key.public.verifies(signature, b"Said")
    assert not other.public.verifies(signature, b"said")
    assert not key.public.verifies(signature[:-1], b"said")
    assert not key.public.verifies(b"", b"said")
    assert key.public != other.public != object()
    assert len({key.public, key.public, other.public}) == 2


def test_several_keys_are_read_from_one_file(tmp_path: Path) -> None:
    keys = [SigningKey.generate().public for _ in range(3)]
    path = tmp_path / "all.pem"
    path.write_text("".join(f"gateway {key.id}\n{key.pem}\n" for key in keys))

    assert read_public_keys(path) == tuple(keys)


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    open_key(tmp_path)
    (tmp_path / SIGNING_KEY).chmod(0o640)

    with pytest.raises(KeyUnusable, match="chmod 600"):
        open_key(tmp_path)


def encrypted() -> bytes:
    key = load_pem_private_key(SigningKey.generate().pem(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET))


def of_another_kind() -> bytes:
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no private key in PEM"),
        (b"nothing of the kind", "no private key in PEM"),
        (SigningKey.generate().pem()[:-40], "no private key in PEM"),
        (SigningKey.generate().public.pem.encode(), "no private key in PEM"),
        (encrypted(), "without a password"),
        (of_another_kind(), "no Ed25519 key"),
    ],
    ids=["empty", "text", "cut", "a public key", "with a password", "of another kind"],
)
def test_a_file_that_is_no_private_key_is_named_and_left_as_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / SIGNING_KEY
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyUnusable, match=words) as caught:
        open_key(tmp_path)

    assert str(path) in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no public key in PEM"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "no public key in PEM"),
        (SigningKey.generate().public.pem.encode()[:-30], "no public key in PEM"),
        (SigningKey.generate().public.pem.encode().replace(b"MC", b"AA"), "no public key in PEM"),
        (
            generate_private_key(SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "no Ed25519 key",
        ),
    ],
    ids=["empty", "of ssh", "cut", "garbled", "of another kind"],
)
def test_a_file_that_is_no_public_key_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "given.pem"
    path.write_bytes(content)

    with pytest.raises(KeyUnusable, match=words) as caught:
        read_public_keys(path)

    assert str(path) in caught.value.message


def test_a_private_key_given_for_the_public_one_is_refused_and_not_repeated(tmp_path: Path) -> None:
    pem = SigningKey.generate().pem()
    path = tmp_path / "given.pem"
    path.write_bytes(pem)

    with pytest.raises(KeyUnusable, match="private key, which nobody should be given") as caught:
        read_public_keys(path)

    assert pem.splitlines()[1].decode() not in str(caught.value)


def test_a_key_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(KeyUnusable, match="cannot be read or made"):
        open_key(tmp_path / "file" / "keys")
    with pytest.raises(KeyUnusable, match=r"cannot be read: No such file"):
        read_public_keys(tmp_path / "absent.pem")


def test_a_text_that_is_no_ascii_is_no_key() -> None:
    with pytest.raises(KeyUnusable, match="no public key in PEM"):
        parse_public_key("-----BEGIN PUBLIC KEY-----\nπ\n-----END PUBLIC KEY-----\n")
