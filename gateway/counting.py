"""Each frame counted once in the life of the process, whether the audit store works or not.

What is shipped is counted as it is read. While the store fails, another reader runs ahead of the shipping one, so the
figures never wait for the store; what it has counted is passed over when shipping comes to it.

Belongs here: who has counted what. Never here: which figure a record belongs to (`book`), or committing anything.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.journal import JournalReader
from gateway.journal.segment import Corruption
from gateway.journal.tail import Budget
from gateway.logs import logger
from gateway.ports import JournalPosition
from gateway.record import Frame

_FRAMES_AT_ONCE = 1_000
_BYTES_AT_ONCE = 4 * 2**20


class Counting:
    """Gives the frames of all journals under `journals` to `observe`, in batches. All of it belongs to one thread."""

    def __init__(self, journals: Path, observe: Callable[[Sequence[Frame]], None]) -> None:
        self._journals = journals
        self._observe = observe
        self._ahead: JournalReader | None = None
        self._counted: dict[str, int] = {}
        self._failed = False

    def count(self, frames: Sequence[Frame]) -> None:
        """Count those of the frames that were not counted ahead. Raises nothing: no figure is worth a record."""
        if self._ahead is not None:
            frames = self._not_counted(frames)
        if not frames:
            return
        try:
            self._observe(frames)
        except Exception as error:  # noqa: BLE001 - whatever the defect is, records are kept
            if not self._failed:
                logger().error("records_not_counted", record_id=frames[0].record.record_id, exc_info=error)
            self._failed = True

    def run_ahead(self, shipping: JournalReader, begun: Mapping[str, JournalPosition]) -> bool:
        """Count what comes after what `shipping`, which began at `begun`, has read; return whether there is more."""
        if self._ahead is None:
            read = {position.journal: position for position in shipping.positions()}
            self._ahead = JournalReader(self._journals, {**begun, **read}, _leave_the_alarm_to_shipping)
        self._ahead.discover()
        budget = Budget(_FRAMES_AT_ONCE, _BYTES_AT_ONCE)
        self.count(self._ahead.read(budget))
        return not budget

    def rejoin(self, shipping: JournalReader) -> None:
        """Read ahead no longer, if `shipping` has come to where that led."""
        if self._ahead is None:
            return
        shipped = shipping.places()
        if all(shipped.get(folder, (0, 0)) >= place for folder, place in self._ahead.places().items()):
            self.close()

    def close(self) -> None:
        """Close what was opened to read ahead."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead, self._counted = None, {}

    def _not_counted(self, frames: Sequence[Frame]) -> list[Frame]:
        """Return, while there are two readers, the frames that the other one has not been given."""
        fresh = []
        for frame in frames:
            if frame.sequence > self._counted.get(frame.journal, 0):
                self._counted[frame.journal] = frame.sequence
                fresh.append(frame)
        return fresh


def _leave_the_alarm_to_shipping(_segment: Path, _damage: Corruption) -> None:
    pass
