"""Taking records out when their time is over: whole days, or single models' records where others must stay.

Belongs here: whose time is over, and the control record that comes first. Never here: SQL, or erasing on request.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

from msgspec import Struct

from gateway.control_records import ControlRecords
from gateway.errors import GatewayError
from gateway.evidence.places import PRUNE, places_digest
from gateway.logs import logger
from gateway.ports import AuditStore, Day
from gateway.settings_audit import AuditSettings

EVERY_SECONDS = 3600.0
ACTOR = "retention"


class Expired(Struct, frozen=True):
    """What of a day is over: the models named, or with `whole` the day itself. `records` is how many there are."""

    day: str
    whole: bool
    models: Sequence[str]
    records: int


def expired(days: Sequence[Day], today: date, settings: AuditSettings) -> Sequence[Expired]:
    """Return what of these days (in order) is over. The newest day never is.

    A day goes whole when its age is above the retention of every model in it, and above the default.
    """
    found: list[Expired] = []
    for day in days[:-1]:
        age = (today - date.fromisoformat(day.day)).days
        over = {model for model in day.records if model and age > _kept_days(model, settings)}
        left = {model for model in day.records if model and model not in over}
        if not left and age > _kept_days("", settings):
            found.append(Expired(day.day, True, (), sum(day.records.values())))
        elif over:
            found.append(Expired(day.day, False, sorted(over), sum(day.records[model] for model in over)))
    return found


def _kept_days(model: str, settings: AuditSettings) -> int:
    return max(settings.retention.get(model, settings.retention_days), settings.retention_floor_days)


class Pruning:
    """Prunes by the settings; `run` is a task of the control process."""

    def __init__(self, store: AuditStore, control: ControlRecords, settings: AuditSettings) -> None:
        self._store = store
        self._control = control
        self._settings = settings
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Prune once an hour; what fails is tried again the next time."""
        while True:
            try:
                await self.prune(ACTOR, "")
            except GatewayError as error:
                logger().error("not_pruned", why=error.message)
            except Exception as defect:  # noqa: BLE001 - a defect must not end retention for good
                logger().error("defect", task="retention", exc_info=defect)
            await asyncio.sleep(EVERY_SECONDS)

    async def due(self) -> Sequence[Expired]:
        """Return what would be pruned now. Raises `AuditUnavailable`."""
        days = await asyncio.to_thread(self._store.days)
        return expired(days, datetime.now(UTC).date(), self._settings)

    async def prune(self, actor: str, comment: str) -> Sequence[Expired]:
        """Prune what is over and return what that was. Raises `AuditUnavailable`."""
        async with self._one_at_a_time:
            due = await self.due()
            for one in due:
                await (self._drop(one, actor, comment) if one.whole else self._thin(one, actor, comment))
                logger().info("pruned", day=one.day, whole=one.whole, models=list(one.models), records=one.records)
            return due

    async def _drop(self, one: Expired, actor: str, comment: str) -> None:
        last = await asyncio.to_thread(_last_checkpoints, self._store, one.day)
        details = {"day": one.day, "whole": True, "count": one.records, "checkpoints": last}
        pruning = await self._control.keep(PRUNE, actor, details, comment=comment)
        await asyncio.to_thread(self._store.drop, one.day, pruning)

    async def _thin(self, one: Expired, actor: str, comment: str) -> None:
        places = await asyncio.to_thread(self._store.places_in, one.day, one.models)
        details = {
            "day": one.day,
            "models": list(one.models),
            "count": len(places),
            "places_sha256": places_digest(places),
        }
        pruning = await self._control.keep(PRUNE, actor, details, comment=comment)
        await asyncio.to_thread(self._store.thin, one.day, one.models, pruning)


def _last_checkpoints(store: AuditStore, day: str) -> Mapping[str, Any]:
    last: dict[str, Any] = {}
    for one in store.checkpoints(day=day):
        last[one.gateway] = {"number": one.number, "sha256": sha256(one.statement).hexdigest()}
    return last
