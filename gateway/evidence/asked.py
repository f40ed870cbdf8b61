"""What is asked of a job: the one piece of paper that passes from the admin port to the process that does the work.

Belongs here: which jobs there are, and the terms of each. Never here: doing one, HTTP, or processes.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.ports import Filter

USUAL_SAMPLE: Final = 1_000
"""Requests that a stretch is sampled for when nothing else is said."""
LARGEST_SAMPLE: Final = 100_000


class Asked(Struct, frozen=True, kw_only=True):
    """Of which records: those received from `since_ns` until before `until_ns` (Unix ns), of one model. None: all."""

    since_ns: int | None = None
    until_ns: int | None = None
    model: str | None = None

    def filter(self, role: str | None = None) -> Filter:
        """Return the filter of those records, of one role if it is said."""
        return Filter(model=self.model, role=role, since_ns=self.since_ns, until_ns=self.until_ns)


class RecomputeAsked(Asked, frozen=True, kw_only=True):
    """Decide all of them again."""


class ExportAsked(Asked, frozen=True, kw_only=True):
    """Export all of them, control records, too; with a model, those that are about it."""


class ReplayAsked(Asked, frozen=True, kw_only=True):
    """Replay one record (`any_id`), on its own version and perhaps on another one; or a sample of many on another one.

    `allow_backend` lets versions be asked that run on a live backend.
    """

    any_id: str | None = None
    version: str | None = None
    sample: int = 0
    allow_backend: bool = False


class VerifyAsked(Asked, frozen=True, kw_only=True):
    """Verify what was recorded on the days from one time to another; the model does not count.

    `checkpoints` is the text of a file of exported checkpoints, `public_keys` the keys (PEM) that the auditor trusts.
    """

    checkpoints: str | None = None
    public_keys: str | None = None


JOBS: Final[Mapping[str, type[Asked]]] = {
    "recompute": RecomputeAsked,
    "export": ExportAsked,
    "replay": ReplayAsked,
    "verify": VerifyAsked,
}
"""Every job, and the terms that it takes."""
