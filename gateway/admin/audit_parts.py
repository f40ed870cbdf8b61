"""What the calls about records work with, as one thing that the composition root puts together.

Belongs here: that bundle. Never here: behaviour.
"""

from pathlib import Path

from msgspec import Struct

from gateway.admin.job_runner import JobRunner
from gateway.control_records import ControlRecords
from gateway.evidence.erasure import Erasing
from gateway.evidence.keys import VerifyingKey
from gateway.evidence.pruning import Pruning
from gateway.ports import AuditStore
from gateway.recorder import Recorder

SEAL_SECONDS = 10.0
"""How long a call waits for a checkpoint that it asked for."""


class AuditParts(Struct, frozen=True):
    """The store, who fills it, who keeps control records, who takes things out of it, and who starts jobs on it.

    `gateway` is this gateway's name, `data_dir` its folder, `key` what its checkpoints are checked with.
    """

    store: AuditStore
    recorder: Recorder
    records: ControlRecords
    erasing: Erasing
    pruning: Pruning
    jobs: JobRunner
    gateway: str
    data_dir: Path
    key: VerifyingKey
