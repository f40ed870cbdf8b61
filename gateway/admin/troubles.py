"""What is wrong with a fleet of gateways, in sentences that say what to do: the verdict on a status.

Belongs here: which parts of a status are a reason to act, as a pure function of it. Never here: finding a status out.
"""

from collections.abc import Iterator

from gateway.controlplane import Impaired, Status, StoreStatus, WorkerStatus


def troubles_of(status: Status) -> list[str]:
    """Return what is wrong, a sentence each; nothing when every worker has the newest rules and they can be changed.

    A version that lost its callers to a brake is wrong until the rules say so. One with backends in trouble, or asked
    for more than it can, is not: the gateway does about it what its rules and manifests say.
    """
    found = list(_of_store(status.store))
    if not status.workers:
        found.append("no worker is known; look at the gateway's log")
    for worker in status.workers:
        found.extend(f"{worker.worker}: {trouble}" for trouble in _of_worker(worker, status.store))
    found.extend(_braked(version) for version in status.impaired if version.braked)
    return found


def _of_store(store: StoreStatus) -> Iterator[str]:
    if store.in_doubt is not None:
        yield (
            f"the rules store is in doubt: {store.in_doubt}; the last good rules stay in force and changes are "
            "refused; decide with `pointsman rules republish` or `pointsman rules accept`"
        )
    if not store.answering:
        yield (f"the rules store does not answer: {store.why}; the rules in force stay in force, changes are refused")


def _of_worker(worker: WorkerStatus, store: StoreStatus) -> Iterator[str]:
    if not worker.alive:
        since = f" for {worker.said_ms // 1000} s" if worker.said_ms is not None else ""
        yield f"silent{since}; it may be frozen or gone, with the rules that it had"
        return
    if not worker.ready:
        yield "not ready"
    if _is_behind(worker, store):
        assert store.head is not None
        yield f"behind: it has revision {worker.revision}, the store {store.head.revision}"
    yield from (f"alarm: {what}" for what in worker.alarms.values())
    yield from (f"the newest route of {model} is not in force: {why}" for model, why in worker.problems.items())


def _is_behind(worker: WorkerStatus, store: StoreStatus) -> bool:
    if store.head is None or store.in_doubt is not None or worker.revision is None:
        return False  # there is nothing to follow, or it has no rules at all and is not ready
    other_life = worker.epoch is not None and worker.epoch != store.head.epoch
    return other_life or worker.revision < store.head.revision


def _braked(version: Impaired) -> str:
    worker, first = min(version.braked.items(), key=lambda one: one[1].since_ns)
    more = f" and {len(version.braked) - 1} more" if len(version.braked) > 1 else ""
    return (
        f"version {version.version} of {version.model} failed {first.failures} of its last {first.of} requests in "
        f"{worker}{more}, which divert from it; its share is to become 0 by a revision, which is not made yet"
    )
