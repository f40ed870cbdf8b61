"""Brakes that tripped in workers, made a change of the rules: the version's share becomes 0, once, for every worker.

A worker diverts from a failing version at once and by itself; what it knows ends with it, and other workers learn it
the hard way. So the control process takes the failing version's share away and gives it to the others of the split in
proportion, as a revision like any other, with the figures in its comment. The new revision of the route ends the
workers' own brakes. Every control process that shares the store may try: the operation's id follows from the revision
that it changes, so it is made once.

Belongs here: which trips become which change. Never here: counting failures, or diverting requests.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from gateway.controlplane.documents import parsed
from gateway.controlplane.proposal import Proposed
from gateway.controlplane.publishing import Licence, Publisher
from gateway.controlplane.storewatch import StoreWatch
from gateway.controlplane.terms import NO_TERMS, Origin
from gateway.errors import ArtifactError, ChangeError, RevisionConflict, RulesUnavailable
from gateway.gauges import BoardFolder, is_alive
from gateway.logs import logger
from gateway.metrics import Slot
from gateway.ports import RulesStore
from gateway.trips import Trip, read_trips, trips_path
from routing import BASIS_POINTS, Route, encode_document, parse_route, standing

ACTOR = "pointsman"
"""Who makes these changes."""
_LOOK_SECONDS = 0.1
_AGAIN_SECONDS = 1.0

Name = tuple[str, int]
"""A model, and the revision of its route by which a version failed."""


class Braking:
    """Makes revisions of the trips of this gateway's workers. `run` is a task of every control process."""

    def __init__(self, store: RulesStore, watch: StoreWatch, publisher: Publisher, boards: BoardFolder) -> None:
        self._store = store
        self._watch = watch
        self._publisher = publisher
        self._boards = boards
        self._refused: dict[Name, str] = {}

    async def run(self) -> None:
        """Look for ever. Outages of the store and defects of ours are survived."""
        while True:
            pause = _LOOK_SECONDS
            try:
                if not await self.look():
                    pause = _AGAIN_SECONDS
            except RulesUnavailable:
                pause = _AGAIN_SECONDS  # the watch of the store tells; the workers divert meanwhile
            except Exception as defect:  # noqa: BLE001
                logger().error("braking_defect", exc_info=defect)
                pause = _AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Make what has to be made; tell whether all of it was. Raises `RulesUnavailable`."""
        found = self._trips()
        self._refused = {name: why for name, why in self._refused.items() if name in found}
        return all([await self._publish(name, trips) for name, trips in found.items()])

    def _trips(self) -> Mapping[Name, Sequence[tuple[str, Trip]]]:
        """Return the trips that hold in living workers, oldest first, each with its worker's name."""
        found: dict[Name, list[tuple[str, Trip]]] = {}
        for worker, board in self._boards.open().items():
            if board[Slot.VERSIONS_BRAKED] and is_alive(board[Slot.PID]):
                for trip in read_trips(trips_path(self._boards.folder, worker)):
                    found.setdefault((trip.model, trip.revision), []).append((worker, trip))
        return {name: sorted(trips, key=lambda one: one[1].at_ns) for name, trips in found.items()}

    async def _publish(self, name: Name, trips: Sequence[tuple[str, Trip]]) -> bool:
        model, revision = name
        stored = await self._store.read("route", model)
        if stored is None or stored.revision != revision:
            return True  # it has been changed since, and the workers are about to learn it
        try:
            route = parsed(parse_route, stored.json)
            split, braked = without(route, [trip.version for _, trip in trips])
            if not braked:
                return self._complain(name, "no version of the split is left that could have its share")
            await self._make(route, revision, split, _comment(route, braked, trips))
        except RulesUnavailable:
            raise
        except RevisionConflict:
            return True  # somebody else was faster, perhaps the control process of another gateway
        except (ChangeError, ArtifactError) as error:
            return self._complain(name, error.message)
        return True

    async def _make(self, route: Route, revision: int, split: Mapping[str, int], comment: str) -> None:
        floor = await self._watch.floor()
        digest = hashlib.blake2b(route.model.encode(), digest_size=8).hexdigest()
        origin = Origin(ACTOR, comment, f"brake-{floor.epoch}-{revision}-{digest}")
        document = encode_document(msgspec.structs.replace(route, split=split))
        proposed = Proposed("route", route.model, document, revision)
        # What it names was in force a moment ago, so nothing on a disk may keep the failing version in traffic.
        made = await self._publisher.make([proposed], origin, NO_TERMS, Licence(trusted=True))
        logger().warning("brake_published", model=route.model, revision=made.revision, comment=comment)

    def _complain(self, name: Name, why: str) -> bool:
        if why != self._refused.get(name):
            model, revision = name
            hint = "the workers divert on; it is tried again every second"
            logger().error("brake_not_published", model=model, revision=revision, why=why, hint=hint)
        self._refused[name] = why
        return False


def without(route: Route, failing: Sequence[str]) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Return a route's split without the versions that fail, and which of them could be left out.

    Each of the others gets of their share in proportion to its own, so that callers who are diverted already stay where
    they are: weights that grow by the same factor move nobody among themselves. The last version that would be left is
    never left out, nor is one that has no share.
    """
    braked: list[str] = []
    for version in dict.fromkeys(failing):
        if route.split.get(version) and standing(route, {*braked, version}):
            braked.append(version)
    others = standing(route, braked)
    total = sum(others.values())
    split = {version: 0 if version in braked else weight for version, weight in route.split.items()}
    split |= {version: weight * BASIS_POINTS // total for version, weight in others.items()}
    # What rounding down left over goes to those that lost most by it.
    by_loss = sorted(others, key=lambda version: (-(others[version] * BASIS_POINTS % total), version))
    for version in by_loss[: BASIS_POINTS - sum(split.values())]:
        split[version] += 1
    return split, tuple(braked)


def _comment(route: Route, braked: Sequence[str], trips: Sequence[tuple[str, Trip]]) -> str:
    """Return what became of it in words, with the figures of each version's first trip and how many workers saw it."""
    said = []
    for version in braked:
        ours = [(worker, trip) for worker, trip in trips if trip.version == version]
        worker, first = ours[0]
        more = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
        said.append(
            f"version {version} failed {first.failures} of its last {first.of} requests in {worker}{more}, "
            f"its share was {route.split[version] / 100:g} %"
        )
    return f"brake: {'; '.join(said)}"[:1024]
