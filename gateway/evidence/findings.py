"""What verification says: every fault as a finding, and the verdict over all of them.

Belongs here: their shape. Never here: looking for faults.
"""

from collections.abc import Sequence

from msgspec import Struct

KEPT_FINDINGS = 100


class Finding(Struct, frozen=True):
    """One fault: `what` is wrong, in words, and where, as far as that is known.

    `journal` and `sequence` name the first record that is concerned, 0 when it is none in particular; `record_id` is
    its id where that can be read. `checkpoint` is the number of a checkpoint of `gateway`, `segment` a file of a
    journal.
    """

    what: str
    gateway: str = ""
    journal: str = ""
    sequence: int = 0
    record_id: str = ""
    day: str = ""
    checkpoint: int = 0
    segment: str = ""


class Findings:
    """Counts every finding and keeps the first so many."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[Finding] = []
        self.journals: set[str] = set()

    def add(self, finding: Finding) -> None:
        """Note a finding."""
        self.count += 1
        if len(self.kept) < KEPT_FINDINGS:
            self.kept.append(finding)
        if finding.journal:
            self.journals.add(finding.journal)


class Verdict(Struct, frozen=True):
    """What verification found.

    `records` is how many records it verified, of them `erased` without their contents; `stubs` what pruning left of
    records; `uncovered` how many came after the newest checkpoint, which nothing vouches for yet; `frames` how many
    frames of journals were compared. `findings` has the first `KEPT_FINDINGS` of `count`, the first bad record first.
    """

    records: int
    stubs: int
    erased: int
    uncovered: int
    checkpoints: int
    frames: int
    count: int
    findings: Sequence[Finding]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return self.count == 0

    @property
    def first(self) -> Finding | None:
        """The first finding."""
        return self.findings[0] if self.findings else None
