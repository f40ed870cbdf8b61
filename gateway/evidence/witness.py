"""The witness of the newest checkpoint: a small file outside the audit store that remembers what was signed last.

    <data_dir>/keys/last-checkpoint.json = {"version": 1, "checkpoints": {gateway: {"number", "sha256"}}}

`sha256` is that of the statement. A store that was set back, by an attacker or from a backup, is found by it: also one
from which the newest checkpoints were taken together with all they cover.

Belongs here: reading and writing that file. Never here: what follows from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.evidence.small_files import write_whole

FILE = "last-checkpoint.json"
_Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Seen(Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint as the witness remembers it: its number, and the SHA-256 (hex) of its statement."""

    number: Annotated[int, Meta(ge=1)]
    sha256: _Digest


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    checkpoints: Mapping[str, Seen]


class WitnessUnreadable(ValueError):
    """The file is there but is no witness, or cannot be read."""


_decode = msgspec.json.Decoder(_File).decode


def read_witness(path: Path) -> Mapping[str, Seen]:
    """Return what the witness remembers, by gateway; nothing when there is no file.

    Raises:
        WitnessUnreadable: there is one, but it cannot be read.
    """
    try:
        return _decode(path.read_bytes()).checkpoints
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WitnessUnreadable(f"{path} cannot be read: {error}") from None


def write_witness(path: Path, checkpoints: Mapping[str, Seen]) -> None:
    """Put these in place of what the witness remembered; durable when it returns. Raises `OSError`."""
    write_whole(path, msgspec.json.encode(_File(1, checkpoints), order="sorted"))
