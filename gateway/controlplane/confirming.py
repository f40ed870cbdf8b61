"""Changes that wait to be confirmed: letting them stand, and taking back what nobody confirmed in time.

Belongs here: the end of an unconfirmed change. Never here: its beginning, which is a change like any other.

Every control process watches, so that the one that made a change may die. The store makes the revert once: its
operation id follows from the revision that it takes back.
"""

import asyncio

from gateway.controlplane.documents import parsed, shown
from gateway.controlplane.operations import Made
from gateway.controlplane.publishing import Licence, Publisher
from gateway.controlplane.restoring import RevisionOf, unconfirmed_revision, undone
from gateway.controlplane.storewatch import StoreWatch
from gateway.controlplane.terms import NO_TERMS, Origin, check_origin
from gateway.errors import ArtifactError, ChangeError, DocumentNotFound, RulesUnavailable
from gateway.logs import logger
from gateway.ports import DocumentName, RulesStore, Unconfirmed
from routing import parse_route

ACTOR = "pointsman"
"""Who takes back what nobody confirmed."""
_LOOK_SECONDS = 1.0


class Confirmations:
    """The changes that wait to be confirmed. `run` is a task of every control process."""

    def __init__(self, store: RulesStore, watch: StoreWatch, publisher: Publisher, look_up: RevisionOf) -> None:
        self._store = store
        self._watch = watch
        self._publisher = publisher
        self._look_up = look_up
        self._refused: dict[int, str] = {}

    async def confirm(self, model: str, origin: Origin) -> int:
        """Let the unconfirmed change of a model's route stand, and return its revision.

        Where no change of the route waits: those of its versions and of the cohorts that it pins; the newest is
        returned.

        Raises:
            DocumentNotFound: none waits (any more).
            InvalidDocument: the origin does not fit.
            RulesUnavailable: the store does not answer, or is in doubt.
        """
        check_origin(origin)
        await self._watch.floor()
        numbers = await self._waiting_for(model)
        stand = [number for number in numbers if await self._store.confirm(number)]
        if not stand:
            why = f"; revision {numbers[-1]} was taken back a moment ago" if numbers else ""
            raise DocumentNotFound(f"no change of model {shown(model)} waits to be confirmed{why}")
        for number in stand:
            logger().info("change_confirmed", revision=number, model=model, actor=origin.actor, comment=origin.comment)
        return max(stand)

    async def _waiting_for(self, model: str) -> list[int]:
        waiting = await self._store.unconfirmed()
        if numbers := [one.revision for one in waiting if ("route", model) in one.documents]:
            return numbers
        route = await self._store.read("route", model)
        pinned = {pin.cohort for pin in parsed(parse_route, route.json).pins} if route is not None else set()

        def concerns(document: DocumentName) -> bool:
            kind, name = document
            return name in pinned if kind == "cohort" else name.partition("/")[0] == model

        return [one.revision for one in waiting if any(map(concerns, one.documents))]

    async def run(self) -> None:
        """Take back for ever what is due. Outages of the store and defects of ours are survived."""
        while True:
            pause = _LOOK_SECONDS
            try:
                pause = await self._turn()
            except RulesUnavailable:
                pass  # the watch of the store tells; what is due stays due
            except Exception as defect:  # noqa: BLE001
                logger().error("confirmations_defect", exc_info=defect)
            await asyncio.sleep(pause)

    async def _turn(self) -> float:
        """Take back what is due, and return the seconds until the next look."""
        waiting = await self._store.unconfirmed()
        self._refused = {one.revision: self._refused.get(one.revision, "") for one in waiting}
        for one in waiting:
            if one.remaining_ms <= 0:
                await self._revert(one)
        return min([_LOOK_SECONDS, *(one.remaining_ms / 1000 for one in waiting if one.remaining_ms > 0)])

    async def _revert(self, due: Unconfirmed) -> None:
        try:
            made = await self._take_back(due)
        except RulesUnavailable:
            raise
        except (ChangeError, ArtifactError) as error:
            await self._complain(due.revision, error.message)
        else:
            logger().warning("change_reverted", revision=due.revision, by=made.revision if made is not None else None)

    async def _take_back(self, due: Unconfirmed) -> Made | None:
        floor = await self._watch.floor()
        revision = await unconfirmed_revision(self._store, self._look_up, due.revision)
        if proposed := undone(revision, due.documents):
            why = f"revision {due.revision} was not confirmed in time"
            origin = Origin(ACTOR, why, f"revert-{floor.epoch}-{due.revision}")
            made = await self._publisher.make(proposed, origin, NO_TERMS, Licence(settles=due.revision, trusted=True))
            if made.changed:
                return made
        await self._store.confirm(due.revision)  # of what it did, nothing is to be taken back
        return None

    async def _complain(self, number: int, why: str) -> None:
        if all(one.revision != number for one in await self._store.unconfirmed()):
            return  # somebody has settled it meanwhile
        if why != self._refused.get(number):
            logger().error("change_not_reverted", revision=number, why=why, hint="it is tried again every second")
        self._refused[number] = why
