"""Taking things out of the audit store: contents of records, records of a model, whole days.

Only what is complete is thinned or dropped; the newest day is refused, since records may still come to it.

Belongs here: which days it touches, and that a day that is going is gone. Never here: statements, or who may ask.
"""

from collections.abc import Collection, Sequence
from functools import partial

from gateway.errors import AuditUnavailable, InvalidInput
from gateway.logs import logger
from gateway.ports import Dropped, Holding, Place, Thinned
from gateway.stores import audit_sqlite_evidence as evidence
from gateway.stores import audit_sqlite_privacy as privacy
from gateway.stores.audit_sqlite_extents import Extents
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import Index
from gateway.stores.audit_sqlite_recording import Recording
from gateway.stores.sqlite_file import Damaged, sync_folder


class Removal:
    """Removes from the files of the store. Every call may come from any thread; raises `AuditUnavailable`.

    Construction ends what was interrupted: it takes away the files of days that were being dropped, and brings what is
    in logs into their files, so that nothing that was being erased stays there.
    """

    def __init__(self, files: DayFiles, index: Index, extents: Extents, recording: Recording) -> None:
        self._files = files
        self._index = index
        self._extents = extents
        self._recording = recording
        for day in index.dropping():
            self._take_away(day)
        for day in files.with_logs():
            try:
                with recording.changing(day) as file:
                    privacy.empty_log(file, seconds=0)
            except AuditUnavailable as error:  # it is read, or damaged; neither is a reason not to start
                logger().warning("audit_log_not_emptied", day=day, why=error.message)

    def erase(self, places: Collection[Place], erasure: str) -> int:
        """Take the contents of records for good; see `AuditStore.erase`."""
        wanted, erased = set(places), 0
        for day, extent in self._extents.all().items():
            if extent.unreadable:
                raise Damaged(extent.unreadable)
            here = [place for place in wanted if extent.holds(place)]
            numbers = self._files.ask(day, partial(privacy.numbers_of, places=here)) if here else None
            if numbers:
                with self._recording.changing(day) as file:
                    erased += privacy.erase(file, numbers, erasure)
        return erased

    def thin(self, day: str, models: Collection[str], pruning: str) -> Thinned:
        """Take the records of some models out of a day; see `AuditStore.thin`."""
        if not self._there(day):
            return Thinned(())
        with self._recording.changing(day) as file:
            return Thinned(sorted(privacy.thin(file, set(models), pruning)))

    def drop(self, day: str, pruning: str) -> Sequence[Dropped]:
        """Take a whole day out of the store; see `AuditStore.drop`."""
        if not self._there(day):
            return ()
        gone = [Dropped(day, one.journal, one.first, one.last, one.records, pruning) for one in self._held(day)]
        with self._recording.dropping():
            self._index.begin_dropping(day, gone)
            self._take_away(day)
        return gone

    def _there(self, day: str) -> bool:
        if day not in self._files.days():
            return False
        newest = self._extents.newest()
        if newest is None or day >= newest:
            raise InvalidInput(f"day: {day} is the newest day of the audit store, to which records may still come")
        return True

    def _held(self, day: str) -> Sequence[Holding]:
        try:
            return self._files.ask(day, partial(evidence.held_in, day=day, since_ns=None, until_ns=None)) or ()
        except Damaged as error:
            logger().error("audit_day_damaged", day=day, why=error.message)
            journals = self._extents.all()[day].journals.items()
            return [Holding(journal, day, first, last, last - first + 1, 0) for journal, (first, last) in journals]

    def _take_away(self, day: str) -> None:
        self._files.forget(day)
        path = self._files.path(day)
        try:
            for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                file.unlink(missing_ok=True)
            sync_folder(path.parent)  # before it is forgotten that the day was to go
        except OSError as error:
            raise AuditUnavailable(f"{path} cannot be taken away: {error}") from None
        self._extents.forget(day)
        self._index.end_dropping(day)
