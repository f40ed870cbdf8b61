"""What every job works with: the records, and the rules of now and of then, all of them only read.

Belongs here: opening those, and putting rules and manifests together for whoever examines records. Never here: a job.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from msgspec import Struct

from gateway.assembly import audit_store, redis_url
from gateway.catalog import Manifest, parse_manifest
from gateway.config import Settings
from gateway.controlplane import Past
from gateway.errors import AuditUnavailable, DocumentNotFound, GatewayError, InvalidDocument, RulesUnavailable
from gateway.evidence.recompute import Wanted
from gateway.ports import AuditStore, DocumentName, RevisionArchive, RulesStore
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from routing import RouteRules


class Parts(Struct, frozen=True):
    """The stores; what a job opens besides ends with `stack`."""

    settings: Settings
    store: AuditStore
    rules: RulesStore
    archive: RevisionArchive
    past: Past
    stack: AsyncExitStack

    async def rules_then(self, wanted: Sequence[Wanted]) -> Mapping[Wanted, RouteRules | GatewayError]:
        """Return the rules that records were decided by, or why nobody can tell what they were."""
        found = dict(await self.past.rules_of(wanted))
        told: dict[Wanted, RouteRules | GatewayError] = {}
        for one in wanted:
            try:
                told[one] = (found.get(one) or await self.past.rules_at(*one)).parsed()
            except (AuditUnavailable, DocumentNotFound, InvalidDocument, RulesUnavailable) as error:
                told[one] = error
        return told

    async def manifests_of(self, model: str, version: str, rules_revision: int | None) -> tuple[Manifest, ...]:
        """Return the manifests of a version that are known: of now, and as it was at a revision of the rules."""
        name: DocumentName = ("version", f"{model}/{version}")
        found: list[bytes] = []
        try:
            if (stored := await self.rules.read(*name)) is not None:
                found.append(stored.json)
        except RulesUnavailable:
            if (stored := await self.past.last_known(*name)) is not None:
                found.append(stored.json)
        if rules_revision is not None:
            with suppress(DocumentNotFound, RulesUnavailable, AuditUnavailable):
                then = await self.past.documents_at(rules_revision, [name])
                found += [one.json for one in then.values()]
        manifests = []
        for json in dict.fromkeys(found):
            with suppress(InvalidDocument):
                manifests.append(parse_manifest(json))
        return tuple(manifests)


def open_parts(settings: Settings, stack: AsyncExitStack) -> Parts:
    """Return the parts of a job; they end with `stack`. Raises `AuditUnavailable` or `SettingsError`."""
    store = audit_store(settings, read_only=True)
    stack.callback(store.close)
    rules = RedisRules(redis_url(settings))
    stack.push_async_callback(rules.close)
    archive = SqliteRevisions(settings.data_dir / "revisions.db", read_only=True)
    stack.callback(archive.close)
    return Parts(settings, store, rules, archive, Past(rules, archive, None), stack)
