"""The process of one job: examines or exports records, beside the processes that serve, and ends.

`python -m gateway.jobs NAME` reads what is asked, and the settings, from its standard input, and answers on its
standard output with lines of JSON: `{"progress": {"done", "total"}}` now and then, and at the end either
`{"result": …}` or `{"error": {"code", "message"}}`. An export has a form of its own (`evidence.exporting`). The stores
are only read.

It runs at a low priority, and ends at once with SIGTERM, or when the process that started it ends.

Belongs here: one function for each job, and what all have in common. Never here: how evidence is worked out, or opening
the stores (`job_parts`).
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final

import msgspec

from gateway import logs
from gateway.admin.job_runner import Order
from gateway.assembly import executor_factory, upstream_client
from gateway.config import Settings, read_settings
from gateway.errors import DocumentNotFound, GatewayError, InternalError, InvalidInput
from gateway.evidence import exporting
from gateway.evidence.asked import JOBS, Asked, ReplayAsked, VerifyAsked
from gateway.evidence.bench import Bench
from gateway.evidence.keys import PUBLIC_KEY, parse_public_keys, read_public_keys
from gateway.evidence.recompute import Recomputation
from gateway.evidence.replay import Replaying
from gateway.evidence.rules_log import compare_archive
from gateway.evidence.trial import TrialRun
from gateway.evidence.verification import Against, verify
from gateway.evidence.witness import FILE as WITNESS
from gateway.job_parts import Parts, open_parts
from gateway.lifeline import end_with
from gateway.protocols.oip_v2 import OipV2
from gateway.protocols.oip_v2_answers import read_answer
from gateway.times import day_of, moment

_NICENESS = 10
_PROGRESS_SECONDS = 0.2
_ALLOCATIONS_BETWEEN_COLLECTIONS = 200_000


class Lines:
    """What a job writes; each line whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._told = 0.0

    def progress(self, done: int, total: int) -> None:
        """Tell how far it is: at the beginning, at the end, and in between not too often."""
        now = time.monotonic()
        if 0 < done < total and now - self._told < _PROGRESS_SECONDS:
            return
        self._told = now
        self._write({"progress": {"done": done, "total": max(done, total)}})

    def result(self, result: Any) -> None:
        """Tell what came of it."""
        self._write({"result": msgspec.to_builtins(result)})

    def error(self, error: GatewayError) -> None:
        """Tell why nothing came of it."""
        self._write({"error": {"code": error.code, "message": error.message}})

    def raw(self, lines: bytes) -> None:
        """Write lines that have a form of their own."""
        self._stream.write(lines)
        self._stream.flush()

    def _write(self, line: Mapping[str, Any]) -> None:
        self.raw(msgspec.json.encode(line) + b"\n")


async def _recompute(parts: Parts, asked: Asked, lines: Lines) -> None:
    wanted = asked.filter()
    recomputation = Recomputation(parts.rules_then)
    total, done = parts.store.count(wanted), 0
    lines.progress(done, total)
    for chunk in parts.store.scan(wanted, contents=False):
        await recomputation.take(chunk)
        done += len(chunk)
        lines.progress(done, total)
    agreed, differences = compare_archive(parts.store, parts.archive, parts.settings.gateway)
    archive = {"agreed": agreed, "differences": msgspec.to_builtins(differences)}
    lines.result({**msgspec.to_builtins(recomputation.result()), "archive": archive})


async def _export(parts: Parts, asked: Asked, lines: Lines) -> None:
    wanted = asked.filter()
    since, until = (moment(at) if at is not None else None for at in (asked.since_ns, asked.until_ns))
    what = {"gateway": parts.settings.gateway, "model": asked.model, "from": since, "to": until}
    lines.raw(exporting.heading(parts.store.count(wanted), what))
    records = 0
    for chunk in parts.store.scan(wanted, contents=True):
        lines.raw(b"".join(exporting.lines_of(chunk)))
        records += len(chunk)
    lines.raw(exporting.ending(records))


async def _replay(parts: Parts, asked: Asked, lines: Lines) -> None:
    assert isinstance(asked, ReplayAsked)
    client = upstream_client(parts.settings)
    parts.stack.push_async_callback(client.close)
    factory = executor_factory(parts.settings, client, parts.stack)
    protocol = OipV2()
    bench = Bench(factory, parts.manifests_of, {protocol.name: protocol}, allow_backend=asked.allow_backend)
    parts.stack.push_async_callback(bench.close)
    replaying = Replaying(bench, read_answer)
    if asked.any_id is None:
        assert asked.version is not None
        wanted = msgspec.structs.replace(asked.filter("primary"), model=asked.model or await _model_of(parts, asked))
        trial = TrialRun(parts.store, bench, replaying)
        lines.result(await trial.run(wanted, asked.version, asked.sample, lines.progress))
        return
    found = parts.store.find(asked.any_id)
    if not found:
        raise DocumentNotFound("no record has that request id, record id or OIP id")
    lines.result(await replaying.replay(found, asked.any_id, asked.version))


async def _model_of(parts: Parts, asked: ReplayAsked) -> str:
    """Return the one model of the records that has the version which is asked for."""
    recorded = {model for day in parts.store.days() for model in day.records}
    registered = (name.partition("/") for name in await parts.rules.read_all("version"))
    models = sorted(model for model, _, version in registered if version == asked.version and model in recorded)
    if not models:
        raise DocumentNotFound(f"no model of the records has a version {asked.version}")
    if len(models) > 1:
        raise InvalidInput(f"model: {', '.join(models[:5])} have a version {asked.version}; name one of them")
    return models[0]


async def _verify(parts: Parts, asked: Asked, lines: Lines) -> None:
    assert isinstance(asked, VerifyAsked)
    keys = parts.settings.data_dir / "keys"
    with TemporaryDirectory(prefix="pointsman-") as folder:
        exported = None
        if asked.checkpoints is not None:
            exported = Path(folder) / "checkpoints"
            exported.write_text(asked.checkpoints, encoding="utf-8")
        against = Against(
            gateway=parts.settings.gateway,
            own=read_public_keys(keys / PUBLIC_KEY)[0],
            witness=keys / WITNESS,
            journals=parts.settings.data_dir / "journal",
            public_keys=parse_public_keys(asked.public_keys) if asked.public_keys is not None else (),
            exported=exported,
            first_day=day_of(asked.since_ns) if asked.since_ns is not None else "",
            last_day=day_of(asked.until_ns - 1) if asked.until_ns is not None else "",
        )
        lines.progress(0, 0)
        verdict = verify(parts.store, against, lines.progress)
    lines.result({**msgspec.to_builtins(verdict), "holds": verdict.holds})


Work = Callable[[Parts, Asked, Lines], Awaitable[None]]
_WORK: Final[Mapping[str, Work]] = {
    "recompute": _recompute,
    "export": _export,
    "replay": _replay,
    "verify": _verify,
}


async def run_job(name: str, settings: Settings, asked: Asked, lines: Lines) -> None:
    """Do a job. Raises `GatewayError` for what cannot be done."""
    async with AsyncExitStack() as stack:
        await _WORK[name](open_parts(settings, stack), asked, lines)


def main(arguments: Sequence[str]) -> int:
    """Do the job that is named, and return 0, or 1 when the last line is an error."""
    (name,) = arguments
    # Libraries that print something must not print it among the lines; it goes where the log goes.
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    end_with(order.parent)
    os.nice(_NICENESS)
    settings = read_settings(bytes(order.settings))
    logs.configure(settings.log_level, gateway=settings.gateway, worker=f"job {name}")
    # Records come by the million, none of them part of a circle; looking for circles would take a fifth of the time.
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS)
    lines = Lines(stream)
    try:
        asyncio.run(run_job(name, settings, msgspec.json.decode(order.asked, type=JOBS[name]), lines))
    except BrokenPipeError:
        os._exit(1)  # nobody is there any more to read it, and what is still in the buffer would only be complained of
    except GatewayError as error:
        lines.error(error)
        return 1
    except Exception as defect:  # noqa: BLE001 - whatever it is, the reader gets a line and no stack trace
        logs.logger().error("defect", job=name, exc_info=defect)
        lines.error(InternalError("a defect of the gateway; its log has the details"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
