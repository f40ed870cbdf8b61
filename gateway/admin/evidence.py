"""Evidence over HTTP: the log verified, decisions taken again, recorded inputs run again, records to take away.

Belongs here: one handler per call of the admin API's table. Never here: the work, which a process of its own does.

Each answer is a stream of JSON lines (`application/x-ndjson`): `{"progress": …}` now and then, and `{"result": …}` or
`{"error": …}` as the last; an export has a form of its own. What is wrong with the question, and what can be told at
once, is answered as a problem, before any stream begins. Each call leaves a control record before anything is done.
"""

import asyncio
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.admin.audit import CATCH_UP_SECONDS
from gateway.admin.audit_parts import SEAL_SECONDS, AuditParts
from gateway.admin.bodies import MANY_BYTES, read_body, read_nothing
from gateway.admin.job_runner import Job
from gateway.admin.parameters import named, truth, whole
from gateway.admin.requests import actor_of, comment_of
from gateway.admin.times import times_of
from gateway.controlplane import ControlPlane
from gateway.errors import AuditUnavailable, InvalidInput, RulesUnavailable
from gateway.evidence.asked import (
    LARGEST_SAMPLE,
    USUAL_SAMPLE,
    Asked,
    ExportAsked,
    RecomputeAsked,
    ReplayAsked,
    VerifyAsked,
)

DAYS = ("from", "to")
STRETCH = (*DAYS, "model")
REPLAY = ("id", "version", "allow_backend", *STRETCH, "sample")


class Evidence:
    """The handlers; each is a Starlette endpoint for one method of one path."""

    def __init__(self, control: ControlPlane, parts: AuditParts) -> None:
        self._control = control
        self._parts = parts

    async def verify(self, request: Request) -> Response:
        """Verify that nothing was edited, by what the body brings from outside. Raises what `_start` does."""
        body = await read_body(request, VerifyBody, MANY_BYTES)
        since_ns, until_ns = times_of(request)
        asked = VerifyAsked(
            since_ns=since_ns, until_ns=until_ns, checkpoints=body.checkpoints, public_keys=body.public_keys
        )
        # An erasure of a moment ago accounts for what it took only once its own record is sealed.
        await asyncio.to_thread(self._parts.recorder.seal, SEAL_SECONDS)
        return await self._start(request, "verify", asked)

    async def recompute(self, request: Request) -> Response:
        """Decide every request of a stretch again. Raises what `_start` does."""
        await read_nothing(request)
        return await self._start(request, "recompute", _stretch_of(request, RecomputeAsked))

    async def replay(self, request: Request) -> Response:
        """Run one recorded input again, or a sample of a stretch on another version. Raises what `_start` does."""
        await read_nothing(request)
        return await self._start(request, "replay", _replay_of(request))

    async def export(self, request: Request) -> Response:
        """Send every record of a stretch. Raises what `_start` does."""
        asked = _stretch_of(request, ExportAsked)
        if request.method == "HEAD":
            return Response(media_type=JobAnswer.media_type)  # of which nobody would read a record
        return await self._start(request, "export", asked)

    async def _start(self, request: Request, name: str, asked: Asked) -> Response:
        """Have a job done, and its answer passed on as it comes.

        Raises:
            Overloaded: too many jobs are running.
            AuditUnavailable: nothing can be recorded now, or the store does not answer.
            DocumentNotFound, CannotReplay, InvalidInput: what the job finds out at once.
        """
        jobs = self._parts.jobs
        jobs.check()
        await asyncio.to_thread(self._parts.recorder.catch_up, CATCH_UP_SECONDS)
        with suppress(RulesUnavailable, AuditUnavailable):  # then the archive has to do as it is
            await self._control.archivist.catch_up()
        await self._parts.records.keep(
            f"audit.{name}", actor_of(request), _told(asked), comment=comment_of(request), model=asked.model or ""
        )
        return JobAnswer(await jobs.start(name, asked))


class VerifyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an auditor has from outside: exported checkpoints (lines of JSON), and public keys (PEM)."""

    checkpoints: str | None = None
    public_keys: str | None = None


class JobAnswer(StreamingResponse):
    """What a job writes, line by line; the job ends with the answer, also when its reader goes away."""

    media_type = "application/x-ndjson"

    def __init__(self, job: Job) -> None:
        super().__init__(job.chunks(), headers={"cache-control": "no-store"})
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.kill()


def _told(asked: Asked) -> dict[str, Any]:
    """Return what a control record says of a question; of texts that came with it, their SHA-256."""
    given = {name: value for name, value in msgspec.to_builtins(asked).items() if value not in (None, False, 0)}
    for name in ("checkpoints", "public_keys"):
        if name in given:
            given[f"{name}_sha256"] = sha256(given.pop(name).encode()).hexdigest()
    return given


def _stretch_of(request: Request, kind: type[RecomputeAsked] | type[ExportAsked]) -> Asked:
    since_ns, until_ns = times_of(request)
    return kind(since_ns=since_ns, until_ns=until_ns, model=named(request, "model"))


def _replay_of(request: Request) -> ReplayAsked:
    any_id, version = named(request, "id"), named(request, "version")
    allow_backend = truth(request, "allow_backend")
    if any_id is not None:
        if also := [name for name in (*STRETCH, "sample") if name in request.query_params]:
            raise InvalidInput(f"{also[0]}: is for a stretch of many records; with `id` one record is replayed")
        return ReplayAsked(any_id=any_id, version=version, allow_backend=allow_backend)
    if version is None:
        raise InvalidInput("id: name a record to replay, or a `version` to replay a stretch of records through")
    since_ns, until_ns = times_of(request)
    return ReplayAsked(
        since_ns=since_ns,
        until_ns=until_ns,
        model=named(request, "model"),
        version=version,
        sample=whole(request, "sample", 1, LARGEST_SAMPLE) or USUAL_SAMPLE,
        allow_backend=allow_backend,
    )
