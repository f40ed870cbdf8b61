"""What a worker reads of the rules in Redis, and tells it: `RulesSource`.

    {pm}:head             hash    epoch, revision; follows (earlier lives, JSON [[epoch, last revision], …])
    {pm}:routes           hash    model → "<revision> <canonical JSON>"
    {pm}:cohorts          hash    name → likewise
    {pm}:versions         hash    model/version → likewise
    {pm}:changes          stream  one entry per revision, with id <revision>-0
    {pm}:unconfirmed      hash    revision → "<server's ms when it is due> <JSON [[kind, name], …]>"
    {pm}:held             hash    "kind name" → the unconfirmed revision that holds this document
    {pm}:ops:<operation>  string  the revision that the operation made, and its epoch if it began one; for a day
    {pm}:acks             hash    worker → "<server's ms> <JSON>"
    {pm}:notice           channel the revision just made; a hint only, the poll of the head carries the promise

The hash tag keeps all of them on one node of a cluster, and each script names every key that it uses.

Belongs here: keys, and reading them. Never here: changes (`rules_redis`), or the form of what a key holds
(`rules_redis_forms`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from gateway.errors import RulesUnavailable
from gateway.ports import Acknowledgement, Head, Kind, Revision, RulesState, StoredDocument
from gateway.stores.redis_link import TIMEOUT_SECONDS, RedisLink, text
from gateway.stores.rules_redis_forms import follows_of, head_of, revision_of, said_by, stored_of

HEAD: Final = "{pm}:head"
HASHES: Final[Mapping[Kind, str]] = {"route": "{pm}:routes", "cohort": "{pm}:cohorts", "version": "{pm}:versions"}
CHANGES: Final = "{pm}:changes"
ACKS: Final = "{pm}:acks"
NOTICE: Final = "{pm}:notice"
BULK: Final = 5.0
"""How many times the time-out of a small call a bulky one may take."""
HISTORY_PAGE: Final = 100
_FORGET_WORKER_MS = 600_000
# How much is asked for in one reply: well below a millisecond of the server's time for ordinary documents, and
# bounded for cohorts, which may have megabytes each.
_PAGES: Final[Mapping[Kind, int]] = {"route": 1000, "cohort": 20, "version": 1000}
_LOAD_ATTEMPTS = 5
_CONNECTIONS = 16


def script(name: str) -> str:
    """Return the text of a script that lies beside this module."""
    return files("gateway.stores").joinpath(name).read_text(encoding="utf-8")


_ACKNOWLEDGE = script("acknowledge.lua")


class RedisSource:
    """`RulesSource`. The head is asked for on a connection of its own, so no big reply delays it."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_SECONDS) -> None:
        """`url` is in a form of `redis_url`. Raises `SettingsError` when it cannot be used."""
        self._link = RedisLink(url, _CONNECTIONS, timeout_s)
        self._head_link = RedisLink(url, 1, timeout_s)

    async def head(self) -> Head | None:
        """Return the present head, or None when the store has none."""
        async with self._head_link.calling() as client:
            epoch, revision = await client.hmget(HEAD, ["epoch", "revision"])
        return head_of(epoch, revision)

    async def load(self) -> RulesState:
        """Return every document as of one head.

        The hashes are read in pages while changes go on, so what is read may be a mixture of revisions; the history
        since the first head is then applied on top, which makes it exact. Nothing blocks the server, and no number
        of writers can make it start again for ever.
        """
        for _ in range(_LOAD_ATTEMPTS):
            before = await self._present_head()
            documents = {
                (kind, name): stored for kind in HASHES for name, stored in (await self.read_all(kind)).items()
            }
            after = await self._present_head()
            if after.epoch != before.epoch or after.revision < before.revision:
                continue
            revisions = await self.revisions(before.revision, after.revision)
            if revisions is None:
                continue
            for revision in revisions:
                _replay(revision, documents)
            return RulesState(after, documents)
        raise RulesUnavailable(f"the rules store at {self._link.where} changes its history while it is read; try again")

    async def revisions(self, after: int, upto: int) -> Sequence[Revision] | None:
        """Return the revisions after+1 … upto in order, or None when the store no longer has all of them."""
        found: list[Revision] = []
        while after < upto:
            last = min(after + HISTORY_PAGE, upto)
            async with self._link.calling(BULK) as client:
                entries = await client.xrange(CHANGES, f"{after + 1}-0", f"{last}-0")
            page = [revision_of(identity, fields) for identity, fields in entries]
            whole = [revision for revision in page if revision is not None]
            if [revision.revision for revision in whole] != list(range(after + 1, last + 1)):
                return None
            found += whole
            after = last
        return found

    async def read_all(self, kind: Kind, prefix: str = "") -> Mapping[str, StoredDocument]:
        """Return the documents of a kind by name, in no order; `prefix` narrows it to names that begin so."""
        return {name: stored async for name, stored in self._scan(kind, prefix)}

    async def _scan(self, kind: Kind, prefix: str) -> AsyncIterator[tuple[str, StoredDocument]]:
        cursor, pattern = 0, f"{prefix}*" if prefix else None
        while True:
            async with self._link.calling(BULK) as client:
                cursor, page = await client.hscan(HASHES[kind], cursor, pattern, _PAGES[kind])
            for name, value in page.items():
                yield text(name), stored_of(value)
            if not cursor:
                return

    async def follows(self) -> Mapping[str, int]:
        """Return the earlier lives of the store that this one follows on: epoch → the last revision that counts."""
        async with self._link.calling() as client:
            return follows_of(await client.hget(HEAD, "follows"))

    def notices(self) -> AsyncGenerator[None, None]:
        """Yield when listening has begun and at each change. Closing the generator closes its connection."""
        return self._link.listening(NOTICE)

    async def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Note what a worker has, stamped with the server's clock."""
        said = said_by(acknowledgement)
        await self._run(_ACKNOWLEDGE, [ACKS], [acknowledgement.worker, said, _FORGET_WORKER_MS])

    async def withdraw(self, worker: str) -> None:
        """Take a worker off the list."""
        async with self._link.calling() as client:
            await client.hdel(ACKS, worker)

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()
        await self._head_link.close()

    async def _present_head(self) -> Head:
        head = await self.head()
        if head is None:
            raise RulesUnavailable(f"the rules store at {self._link.where} has no rules yet")
        return head

    async def _run(
        self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int], patience: float = 1.0
    ) -> Any:
        # The script goes along each time: it is small, and no cache of scripts can have lost it after a restart.
        async with self._link.calling(patience) as client:
            return await client.eval(script, len(keys), *keys, *arguments)


def _replay(revision: Revision, documents: dict[tuple[Kind, str], StoredDocument]) -> None:
    for change in revision.changes:
        if change.after is None:
            documents.pop((change.kind, change.name), None)
        else:
            documents[change.kind, change.name] = StoredDocument(revision.revision, change.after)
