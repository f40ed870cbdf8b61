"""Versions on a bench: prepared by the digest that a record names, run on recorded input, and given back.

Belongs here: finding the right version, running it, and saying why that cannot be. Never here: records of their own,
which replays never leave, or comparing answers.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic_ns
from typing import Final

from msgspec import Struct

from gateway.catalog import Manifest
from gateway.errors import ArtifactError, CannotReplay, GatewayError
from gateway.messages import Work
from gateway.ports import Executor, ExecutorFactory, InferProtocol
from gateway.record import Record

RUN_SECONDS: Final = 120
"""How long one replay may run; nobody waits for it as a client does."""

ManifestsOf = Callable[[str, str, int | None], Awaitable[tuple[Manifest, ...]]]
"""Returns the manifests of (model, version) that are known, newest first: of now, and of a revision of the rules."""


class Ran(Struct, frozen=True):
    """What came of one run. `error_code` is that of the error in `body`, None for an answer; `infer_us` in µs."""

    status: int
    body: bytes
    infer_us: int
    error_code: str | None = None


class Ready(Struct, frozen=True):
    """A version that can run."""

    manifest: Manifest
    executor: Executor


class Bench:
    """Prepares each version once. `allow_backend` lets versions be asked that run on a live backend."""

    def __init__(
        self,
        executor_for: ExecutorFactory,
        manifests_of: ManifestsOf,
        protocols: Mapping[str, InferProtocol],
        *,
        allow_backend: bool,
    ) -> None:
        self._executor_for = executor_for
        self._manifests_of = manifests_of
        self._protocols = protocols
        self._allow_backend = allow_backend
        self._prepared: dict[tuple[str, str, str | None], Ready | CannotReplay] = {}

    async def recorded(self, record: Record) -> Ready:
        """Return the version that answered a record, the very artifact by its digest.

        Raises:
            CannotReplay: no version ran, it is gone, its artifact has changed, or runs on a backend.
        """
        version = record.served or (record.attempts[-1].version if record.attempts else None)
        if version is None:
            raise CannotReplay(f"no version ran: it was {record.outcome} before that ({record.error_code})")
        return await self._find(record.model, version, record.rules_revision, record.digest)

    async def named(self, model: str, version: str, rules_revision: int | None = None) -> Ready:
        """Return a version by its name. Raises `CannotReplay` when there is none, or it cannot be prepared."""
        return await self._find(model, version, rules_revision, None)

    async def run(self, version: Ready, record: Record, body: bytes) -> Ran:
        """Run a version on a body, in the protocol of a record. What it answers with an error is an answer, too.

        Raises:
            CannotReplay: the protocol is not known here.
        """
        protocol = self._protocols.get(record.protocol)
        if protocol is None:
            raise CannotReplay(f"its protocol {record.protocol} is not known here")
        forward = (("x-request-id", f"replay-of-{record.record_id}"),)
        work = Work(body, {}, forward, monotonic_ns() + RUN_SECONDS * 1_000_000_000)
        started = monotonic_ns()
        try:
            result = await version.executor.execute(work, protocol)
        except GatewayError as error:
            rendered = protocol.render_error(error)
            return Ran(rendered.status, rendered.body, (monotonic_ns() - started) // 1000, error.code)
        return Ran(result.rendered.status, result.rendered.body, result.infer_ns // 1000)

    async def close(self) -> None:
        """Give every version back."""
        prepared, self._prepared = self._prepared, {}
        for version in prepared.values():
            if isinstance(version, Ready):
                await version.executor.release()

    async def _find(self, model: str, version: str, rules_revision: int | None, digest: str | None) -> Ready:
        key = (model, version, digest)
        if key not in self._prepared:
            try:
                self._prepared[key] = await self._prepare(model, version, rules_revision, digest)
            except CannotReplay as error:
                self._prepared[key] = error
        found = self._prepared[key]
        if isinstance(found, CannotReplay):
            raise CannotReplay(found.message)
        return found

    async def _prepare(self, model: str, version: str, rules_revision: int | None, digest: str | None) -> Ready:
        subject = f"version {version} of model {model}"
        known = await self._manifests_of(model, version, rules_revision)
        fitting = [manifest for manifest in known if digest is None or manifest.digest == digest]
        if not known:
            raise CannotReplay(f"{subject} is not registered")
        if not fitting:
            raise CannotReplay(f"{subject} is registered with another artifact than the record's (sha256 {digest})")
        why = ""
        for manifest in fitting:  # the same artifact may have lain elsewhere then
            if manifest.backend.http is not None and not self._allow_backend:
                raise CannotReplay(f"{subject} runs on a live backend; say --allow-backend to have it called")
            executor = self._executor_for(manifest)
            try:
                await executor.prepare()
            except ArtifactError as error:
                why = error.message
                await executor.release()
            else:
                return Ready(manifest, executor)
        raise CannotReplay(f"{subject} cannot run any more: {why}")
