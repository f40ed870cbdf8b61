"""What verification holds a store against.

Belongs here: those settings of one verification. Never here: verifying.
"""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from gateway.evidence.keys import VerifyingKey


class Against(Struct, frozen=True):
    """What the store is held against; everything may be left out.

    `gateway` is the gateway that verifies itself, `own` its public key, `witness` the file of its witness, `journals`
    the folder of its journals. `public_keys` are the keys that the auditor trusts, instead of those the store names,
    `exported` a file of exported checkpoints. Only days from `first_day` to `last_day` (ISO) are walked; the order of
    all checkpoints is looked at whatever the days. What was erased or pruned a moment ago is accounted for as soon as
    a checkpoint covers the record of it; that is waited for, `patience_seconds` from when that record was made.
    """

    gateway: str = ""
    own: VerifyingKey | None = None
    witness: Path | None = None
    journals: Path | None = None
    public_keys: Sequence[VerifyingKey] = ()
    exported: Path | None = None
    patience_seconds: float = 30.0
    first_day: str = ""
    last_day: str = ""

    @property
    def whole(self) -> bool:
        """Whether every day is walked."""
        return not self.first_day and not self.last_day

    def has(self, day: str) -> bool:
        """Tell whether a day is walked."""
        return self.first_day <= day and (not self.last_day or day <= self.last_day)
