"""What is asked of a worker besides inference: is it there, does it serve, which versions has a model, are they ready.

Belongs here: those answers, and the errors that say what there is where a caller named something else. Never here:
serving (`dataplane`), names of protocols, building HTTP.
"""

import asyncio

from gateway.errors import AuditUnavailable, GatewayError, NotReady, UnknownModel, UnknownVersion
from gateway.messages import Readiness
from gateway.ports import RecordSink
from gateway.snapshot import RouteEntry, Rules, Snapshot
from routing import named_versions

_LONGEST_NAME = 128


class Inquiries:
    """Answers for one worker. `stopping` is set once, when the worker begins to drain."""

    def __init__(self, rules: Rules, sink: RecordSink) -> None:
        self._rules = rules
        self._sink = sink
        self.stopping = False

    def live(self) -> bool:
        """Tell whether the worker runs at all."""
        return True

    def ready(self) -> bool:
        """Tell whether requests should be sent here: rules are in force and followed, records kept, no drain begun."""
        rules = self._rules
        if self.stopping or rules.snapshot is None or rules.behind:
            return False
        try:
            self._sink.check()
        except AuditUnavailable:
            return False
        return True

    async def model_ready(self, model: str, version: str | None) -> Readiness:
        """Tell whether a version (or without one: every version that the split can choose) can serve now.

        Raises:
            UnknownModel, UnknownVersion, NotReady
        """
        entry, snapshot = self._find(model)
        if version is not None:
            return await _readiness(entry, version, snapshot)
        chosen = [name for name, weight in entry.route.split.items() if weight > 0]
        found = await asyncio.gather(*(_readiness(entry, name, snapshot) for name in chosen))
        lacking = next((readiness for readiness in found if not readiness.ready), None)
        return lacking if lacking is not None else found[0]

    async def describe(self, model: str, version: str | None) -> tuple[tuple[str, ...], Readiness]:
        """Return the versions that the route names, and the readiness (with signature) of one version.

        Without `version`, the one with the largest share speaks for the model.

        Raises:
            UnknownModel, UnknownVersion, NotReady
        """
        entry, snapshot = self._find(model)
        stable = max(entry.route.split.items(), key=lambda item: item[1])[0]
        names = _named(entry, snapshot)
        return names, await _readiness(entry, version if version is not None else stable, snapshot)

    def _find(self, model: str) -> tuple[RouteEntry, Snapshot]:
        snapshot = self._rules.snapshot
        entry = snapshot.routes.get(model) if snapshot is not None else None
        if snapshot is None or entry is None:
            raise no_such_model(model, snapshot)
        return entry, snapshot


def no_such_model(model: str, snapshot: Snapshot | None) -> GatewayError:
    """Return why a model is not found: in no rules at all, or not in those of `snapshot`."""
    if snapshot is None:
        return NotReady("no routing rules are loaded yet; try again shortly")
    return UnknownModel(f"no model named {cut(model)}; GET the admin API's /admin/v1/models for a list")


def no_such_version(entry: RouteEntry, version: str, snapshot: Snapshot) -> UnknownVersion:
    """Return why a version of a model is not found."""
    model = entry.route.model
    if (model, version) in snapshot.registered:
        return UnknownVersion(
            f"version {version} of model {model} is registered, but its route does not name it, so it is not loaded; "
            "name it in the route (a share of 0 will do)"
        )
    named = ", ".join(_named(entry, snapshot))
    return UnknownVersion(f"model {model} has no version {cut(version)}; its route names {named}")


def cut(name: str) -> str:
    """Return a caller's text fit for a message or a line: never longer than a legal name."""
    return name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"


async def _readiness(entry: RouteEntry, version: str, snapshot: Snapshot) -> Readiness:
    prepared = snapshot.versions.get((entry.route.model, version))
    if prepared is None:
        raise no_such_version(entry, version, snapshot)
    if prepared.problem is not None:
        return Readiness(False, prepared.problem.message)
    return await prepared.executor.ready()


def _named(entry: RouteEntry, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the versions that the route names and that are there, in order."""
    model = entry.route.model
    return tuple(sorted(name for name in named_versions(entry.route) if (model, name) in snapshot.versions))
