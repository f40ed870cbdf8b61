"""What somebody proposes to change, and on which terms.

Belongs here: the shape of a proposed change. Never here: whether it is legal, or making it.
"""

from msgspec import Struct

from gateway.ports import DocumentName, Kind


class Proposed(Struct, frozen=True):
    """One document as it is to be: its canonical JSON, or None to delete it.

    `expect` is the revision that it has now; 0 when it must not exist, None when the proposer did not say.
    """

    kind: Kind
    name: str
    json: bytes | None
    expect: int | None = None

    @property
    def document(self) -> DocumentName:
        """Kind and name."""
        return self.kind, self.name


class Terms(Struct, frozen=True):
    """On which terms a change is made.

    `dry_run` says what would change and makes nothing. `preview` works out beforehand who would move and keeps
    that with the revision; `max_moves` does so too, and refuses the change when more callers would move than that.
    `confirm_within_ms` takes the change back unless it is confirmed in time.
    """

    dry_run: bool = False
    preview: bool = False
    max_moves: int | None = None
    confirm_within_ms: int | None = None
