"""The one door for changes of the rules: validate, compare and set, say who and why, wait for every worker.

Belongs here: every change by its name, turned into documents. Never here: HTTP, YAML, how rules are stored, what makes
documents legal, or being called from the data plane.
"""

from collections.abc import Mapping, Sequence

from gateway.controlplane.archiving import Tell, tell_nobody
from gateway.controlplane.braking import Braking
from gateway.controlplane.checking import Inspect
from gateway.controlplane.confirming import Confirmations
from gateway.controlplane.convergence import Published
from gateway.controlplane.lookups import Lookups
from gateway.controlplane.operations import Made, Operations
from gateway.controlplane.previewing import ChangePreview, Traffic
from gateway.controlplane.proposal import Proposed, Terms
from gateway.controlplane.publishing import Licence, Publisher
from gateway.controlplane.reading import Reader
from gateway.controlplane.resettling import Resettled, Resettling
from gateway.controlplane.restoring import Cohorts, Restoring, Wanted
from gateway.controlplane.status import Fleet, Status
from gateway.controlplane.storewatch import StoreWatch
from gateway.controlplane.terms import NO_TERMS, Origin
from gateway.errors import ChangeError, RulesUnavailable
from gateway.gauges import BoardFolder
from gateway.ports import AuditStore, RevisionArchive, RulesStore


class ControlPlane(Lookups):
    """Reads and changes the rules. Every method raises `RulesUnavailable` when the store does not answer.

    Every change raises what `Publisher.make` does; what is refused carries the present revision of the document at
    fault. `confirmations.run` and `braking.run` are tasks of the control process.
    """

    def __init__(  # noqa: PLR0917 - the composition root names every part it connects
        self,
        store: RulesStore,
        audit: AuditStore,
        archive: RevisionArchive,
        inspect: Inspect,
        watch: StoreWatch,
        boards: BoardFolder,
        *,
        gateway: str,
        publish_wait_s: float,
        tell: Tell = tell_nobody,
    ) -> None:
        """`inspect` prepares a version for a moment and raises `ArtifactError` for one that cannot run.

        `watch` is run by the caller, `boards` are those of this gateway's workers, `gateway` is its name. `tell` is
        told every revision before it is archived.
        """
        super().__init__(store, audit, archive, tell)
        self._watch = watch
        self._reader = Reader(store)
        self._publisher = Publisher(store, watch, inspect, self._foresee, publish_wait_s)
        self._operations = Operations(store)
        self._restoring = Restoring(store, self._past)
        self._resettling = Resettling(store, archive, watch, self._publisher)
        self._fleet = Fleet(store, watch, boards, gateway)
        self.confirmations = Confirmations(store, watch, self._publisher, self.revision)
        self.braking = Braking(store, watch, self._publisher, boards)

    async def _foresee(self, proposed: Sequence[Proposed]) -> ChangePreview:
        return await self.preview(proposed, Traffic())

    # ── one document ─────────────────────────────────────────────────────────────────────────────────────────────

    async def put_route(
        self, model: str, document: bytes, expect: int | None, origin: Origin, terms: Terms = NO_TERMS
    ) -> Published:
        """Make or change the route of a model. `expect` is the revision it has now; None or 0 when it has none.

        Raises:
            InvalidDocument: it does not fit, or names a version or cohort that there is not.
            RevisionRequired, RevisionConflict: `expect` is missing, or not what the route has now.
            ArtifactMissing, DigestMismatch: a version that it newly names is not on disk as it was registered.
        """
        proposed = await self._reader.one("route", model, document, expect)
        return await self._publisher.publish([proposed], origin, terms)

    async def put_cohort(
        self, name: str, document: bytes, expect: int | None, origin: Origin, terms: Terms = NO_TERMS
    ) -> Published:
        """Make or change a cohort. `expect` is the revision it has now; None or 0 when it does not exist.

        Raises:
            InvalidDocument, RevisionRequired, RevisionConflict
        """
        proposed = await self._reader.one("cohort", name, document, expect)
        return await self._publisher.publish([proposed], origin, terms)

    async def delete_cohort(self, name: str, expect: int | None, origin: Origin) -> Published:
        """Delete a cohort that no route pins.

        Raises:
            DocumentNotFound, RevisionRequired, RevisionConflict
            CohortInUse: with the models whose routes pin it.
        """
        return await self._publisher.publish([Proposed("cohort", name, None, expect)], origin, NO_TERMS)

    async def register(self, model: str, document: bytes, allow_incomplete: bool, origin: Origin) -> Published:
        """Register a version. The same content again changes nothing, or where its artifact lies.

        Raises:
            InvalidDocument: it does not fit, or its artifact's path is relative.
            IncompleteManifest: with the paths that are missing.
            ArtifactMissing, DigestMismatch, ArtifactInvalid: the artifact is not there, not that one, or cannot run.
            VersionExists: it is registered with other content.
        """
        proposed = await self._reader.one("version", model, document, None)
        licence = Licence(unseen_if_same=True, allow_incomplete=allow_incomplete)
        return await self._publisher.publish([proposed], origin, NO_TERMS, licence)

    # ── many documents ───────────────────────────────────────────────────────────────────────────────────────────

    async def change(
        self,
        documents: Sequence[bytes],
        expect: Mapping[str, int],
        allow_incomplete: bool,
        origin: Origin,
        terms: Terms = NO_TERMS,
    ) -> Published:
        """Make or change routes, cohorts and versions, all or none, as one revision.

        `documents` are bare: one with `backend` is a version, with `split` a route, else with `name` a cohort.
        `expect` maps `route/digits`, `cohort/beta` to the revision that the document has now. One that exists has to be
        in it to be changed; one that is already as proposed is left out of the change, and a dry run asks for none.

        Raises:
            What the methods for one document do; with several, the message begins with which one it is about.
        """
        proposed = await self._reader.many(documents, expect)
        licence = Licence(unseen_if_same=True, allow_incomplete=allow_incomplete)
        return await self._publisher.publish(proposed, origin, terms, licence)

    async def proposed(self, documents: Sequence[bytes]) -> Sequence[Proposed]:
        """Return the proposals of bare documents, for `preview`. Raises `InvalidDocument` as `change` does."""
        return await self._reader.many(documents, {})

    async def rollback(  # noqa: PLR0917 - what the caller says, one by one
        self,
        model: str,
        to: int | None,
        cohorts: Cohorts | None,
        expect: int | None,
        origin: Origin,
        terms: Terms = NO_TERMS,
    ) -> Published:
        """Bring the route of a model back as it was at revision `to`, or, with None, before its last change.

        With it come the cohorts that it pinned, as they were then: the same callers get the same versions. A change
        that waits to be confirmed is taken back whole. `expect` is the revision the route has now, if the caller says.

        Raises:
            DocumentNotFound: the route did not exist at that revision, or has never been otherwise.
            CohortInUse: such a cohort is pinned by other models' routes, too, and `cohorts` is None.
            What `put_route` does.
        """
        await self._watch.floor()  # a store in doubt is no ground to look for the past on
        wanted = Wanted(model, to, cohorts, expect)
        made = None if terms.dry_run else await self._operations.made_of(("route", model), origin)
        if made is None:
            try:
                made = await self._roll_back(wanted, origin, terms)
            except RulesUnavailable:
                raise
            except ChangeError:
                # Its own twin may have been first; what was before the last change is not the same then.
                if terms.dry_run or (made := await self._operations.made_of(("route", model), origin)) is None:
                    raise
        return await self._publisher.published(made, terms)

    async def _roll_back(self, wanted: Wanted, origin: Origin, terms: Terms) -> Made:
        restored = await self._restoring.documents(wanted)
        # What nobody confirmed yet is taken back as its time would do it, whatever has become of artifacts since.
        licence = Licence(settles=restored.settles, trusted=restored.settles is not None and wanted.to is None)
        return await self._publisher.make(restored.proposed, origin, terms, licence)

    # ── what is decided later ────────────────────────────────────────────────────────────────────────────────────

    async def confirm(self, model: str, origin: Origin) -> int:
        """Let the unconfirmed change of a model stand, and return its revision. Raises what `Confirmations` does."""
        return await self.confirmations.confirm(model, origin)

    async def republish(self, origin: Origin, dry_run: bool) -> Resettled:
        """Give a store that is in doubt the last good rules of this gateway. Raises what `Resettling` does."""
        return await self._resettling.republish(origin, dry_run=dry_run)

    async def accept(self, origin: Origin, dry_run: bool) -> Resettled:
        """Take the rules of a store that is in doubt as they are. Raises what `Resettling` does."""
        return await self._resettling.accept(origin, dry_run=dry_run)

    async def status(self) -> Status:
        """Return how store, gateways and workers stand; also, and soon, while the store does not answer."""
        return await self._fleet.status()
