"""Which checkpoints are remembered outside the store: by the witness, and by a file of exported ones.

Belongs here: gathering them. Never here: comparing them with the store (`succession`).
"""

from collections.abc import Mapping
from pathlib import Path

from gateway.evidence.exported import read_exported
from gateway.evidence.findings import Finding, Findings
from gateway.evidence.trust import Trust
from gateway.evidence.witness import Seen, WitnessUnreadable, read_witness


def remembered(
    exported: Path | None, witness: Path | None, trust: Trust, findings: Findings
) -> Mapping[str, Mapping[int, str]]:
    """Return the digests (hex) of the statements that are remembered, by gateway and number.

    What cannot be read, and two of one number, leave findings. Raises `OSError` when the exported file is not there.
    """
    found: dict[str, dict[int, str]] = {}

    def note(gateway: str, seen: Seen) -> None:
        if found.setdefault(gateway, {}).setdefault(seen.number, seen.sha256) != seen.sha256:
            what = f"two different checkpoints {seen.number} are remembered outside the store"
            findings.add(Finding(what, gateway=gateway, checkpoint=seen.number))

    for gateway, seen in read_exported(exported, trust, findings) if exported is not None else ():
        note(gateway, seen)
    if witness is not None:
        try:
            for gateway, seen in read_witness(witness).items():
                note(gateway, seen)
        except WitnessUnreadable as error:
            findings.add(Finding(f"the witness {error}"))
    return found
