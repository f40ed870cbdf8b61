"""What is in force: of each model which route, with which prepared versions.

Belongs here: the rule that a route comes into force only with its versions. Never here:
asking the store, parsing documents, or running executors.
"""

import asyncio
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from gateway.snapshot.documents import Documents
from gateway.snapshot.frozen_map import FrozenMap
from gateway.snapshot.preparation import Preparations
from gateway.snapshot.prepared import PreparedVersion
from gateway.snapshot.shapes import RouteEntry, Snapshot
from routing import named_versions


class _Missing:
    """In the place of a version whose manifest there is not."""


_MISSING = _Missing()
_LONGEST_PROBLEM = 500  # characters; it is acknowledged every second


class _Placed(Struct, frozen=True, eq=False):
    """One model in force. `broken` are the versions that its route names and that cannot serve."""

    entry: RouteEntry
    versions: Mapping[str, PreparedVersion]
    broken: frozenset[str]


class InForce:
    """Decides model by model what is in force. `problems` says why a model's newest route is not, or not wholly."""

    def __init__(self, documents: Documents, preparations: Preparations) -> None:
        self._documents = documents
        self._preparations = preparations
        self._placed: dict[str, _Placed] = {}
        self.problems: dict[str, str] = {}
        self.loaded = 0

    async def begin(self) -> Snapshot:
        """Return the first snapshot. Every version has been tried by then, so what is served first is complete."""
        for model in list(self._documents.routes):
            self._find(model)
            await asyncio.sleep(0)  # probes of a worker with thousands of models are answered meanwhile
        await self._preparations.tried()
        return self.advance(None, self._documents.routes)

    def advance(self, previous: Snapshot | None, models: Iterable[str]) -> Snapshot:
        """Return the snapshot after `previous`, with these models looked at again and all others as they were."""
        looked: dict[str, _Placed | None] = {}
        for model in models:
            before, after = self._placed.get(model), self._place(model)
            if after is not before:
                looked[model] = after
        gone = [(model, version) for model in looked for version in self._versions_of(model)]
        put = {
            (model, version): prepared
            for model, after in looked.items()
            if after is not None
            for version, prepared in after.versions.items()
        }
        entries = {model: after.entry for model, after in looked.items() if after is not None}
        self._commit(looked)
        documents = self._documents
        assert documents.head is not None  # there are no models before there is a head
        return Snapshot(
            documents.head,
            (previous.routes if previous is not None else FrozenMap()).changed(entries, looked),
            documents.cohorts,
            documents.cohort_revisions,
            (previous.versions if previous is not None else FrozenMap()).changed(put, gone),
            documents.registered,
        )

    def _versions_of(self, model: str) -> Iterable[str]:
        placed = self._placed.get(model)
        return placed.versions if placed is not None else ()

    def _commit(self, looked: Mapping[str, _Placed | None]) -> None:
        """Note what was placed, all at once: had one model failed, none would count as being in the snapshot."""
        for model, after in looked.items():
            before = self._placed.pop(model, None)
            self.loaded += _healthy(after) - _healthy(before)
            if after is not None:
                self._placed[model] = after

    def _place(self, model: str) -> _Placed | None:
        """Return what is to be in force of a model: its newest route if that can be.

        A route comes into force when each of its versions can serve. A version that cannot be prepared holds it back,
        so that a bad artifact never takes traffic, unless the model has nothing else in force or that version is as
        broken in the route in force: then its healthy versions serve, and a change that drains it is not held back.
        """
        entry, current = self._documents.routes.get(model), self._placed.get(model)
        if entry is None:
            self.problems.pop(model, None)
            self._preparations.retain(model, frozenset())
            return None
        found = self._find(model)
        waiting = sorted(version for version, one in found.items() if one is None)
        broken = {version: why for version, one in sorted(found.items()) if (why := _why_broken(version, one))}
        if waiting:
            self.problems[model] = f"preparing version {', '.join(waiting)}"
            placed = self._kept(current)
        elif current is not None and broken.keys() - current.broken:
            self.problems[model] = f"route revision {entry.revision} is not in force: {'; '.join(broken.values())}"
            placed = self._kept(current)
        else:
            self.problems[model] = "; ".join(broken.values())
            usable = {version: one for version, one in found.items() if isinstance(one, PreparedVersion)}
            placed = _Placed(entry, usable, frozenset(broken))
        if not self.problems[model]:
            del self.problems[model]
        self._preparations.retain(model, found.keys() | (placed.versions.keys() if placed is not None else set()))
        return placed

    def _find(self, model: str) -> Mapping[str, PreparedVersion | _Missing | None]:
        """Return what there is of each version that the model's newest route names; None while it is being prepared."""
        found: dict[str, PreparedVersion | _Missing | None] = {}
        for version in named_versions(self._documents.routes[model].route):
            manifest = self._documents.manifest(model, version)
            found[version] = _MISSING if manifest is None else self._preparations.want(model, version, manifest)
        return found

    def _kept(self, current: _Placed | None) -> _Placed | None:
        """Return what is in force as it is with the cohorts of now, the same object if that changes nothing."""
        if current is None:
            return None
        entry = self._documents.refreshed(current.entry)
        same = (entry.consulted, entry.cohort_revision) == (current.entry.consulted, current.entry.cohort_revision)
        return current if same else msgspec.structs.replace(current, entry=entry)


def _why_broken(version: str, one: PreparedVersion | _Missing | None) -> str | None:
    if isinstance(one, _Missing):
        return f"version {version} is not registered, or its manifest cannot be read"
    if one is not None and one.problem is not None:
        return f"version {version} cannot be prepared: {one.problem.message[:_LONGEST_PROBLEM]}"
    return None


def _healthy(placed: _Placed | None) -> int:
    return sum(one.problem is None for one in placed.versions.values()) if placed is not None else 0
