"""`pointsman audit export`: records in a file of JSON lines or Parquet.

Belongs here: the command, and a file that is there whole or not at all. Never here: which columns there are (the
gateway says), or how Parquet is written (`parquet`).
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol

import typer

from gateway.cli import show
from gateway.cli.client import AdminClient
from gateway.cli.evidence import OfModel, Since, Until, stretch
from gateway.cli.failures import CommandFailed, Misuse, Unreachable
from gateway.cli.job import Bar, bar, refused
from gateway.cli.options import Actor, AdminUrl, Comment, connect, example
from gateway.cli.parquet import ParquetLines, check_pyarrow

_STANDARD_OUTPUT = "-"
_RECORD = b'{"record_id":'
_TOLD_EVERY = 500


class Format(StrEnum):
    """What can be exported to."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class _Records(Protocol):
    """Where records go, line by line."""

    def add(self, line: bytes) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    """Writes records as they come."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, line: bytes) -> None:
        self._file.write(line + b"\n")

    def finish(self) -> None:
        self._file.flush()

    def close(self) -> None:
        pass


def register(commands: typer.Typer) -> None:
    """Add the command to `pointsman audit`."""
    commands.command(
        epilog=example(
            "pointsman audit export --from 30d --model digits --format parquet -o digits.parquet",
            "pointsman audit export --from 24h -o - | jq .served",
        )
    )(export)


def export(
    context: typer.Context,
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="The file; - is standard output.", metavar="FILE")],
    since: Since = None,
    until: Until = None,
    model: OfModel = None,
    file_format: Annotated[Format, typer.Option("--format", help="JSON lines, or Parquet.")] = Format.JSONL,
    actor: Actor = None,
    comment: Comment = "",
    admin_url: AdminUrl = None,
) -> None:
    """Export records with their bodies to a file. It appears when it is whole; the export is recorded."""
    if file_format is Format.PARQUET:
        if output == _STANDARD_OUTPUT:
            raise Misuse("--output: Parquet cannot go to standard output", "Name a file.")
        check_pyarrow()
    with connect(context, admin_url, actor, comment) as client, _opened(output) as file:
        records = _exported(client, stretch(since, until, model), file_format, file)
    if output != _STANDARD_OUTPUT:
        show.say(f"exported {records} records to {output}")


def _exported(client: AdminClient, params: dict[str, str], file_format: Format, file: BinaryIO) -> int:
    """Write every record that comes, and return how many. Raises `Unreachable` when they are not all there."""
    with client.stream("GET", "audit", "export", params=params) as lines, bar("exporting") as shown:
        heading = json.loads(next(lines, b"{}")).get("export")
        if heading is None:
            raise Unreachable(f"{client.url} does not answer with an export", "Check --admin-url.")
        into: _Records = ParquetLines(file, heading["columns"]) if file_format is Format.PARQUET else _JsonLines(file)
        try:
            records = _copy(lines, into, shown, heading["records"])
            into.finish()
        finally:
            into.close()
    return records


def _copy(lines: Iterator[bytes], into: _Records, shown: Bar, total: int) -> int:
    records = 0
    for line in lines:
        if line.startswith(_RECORD):
            into.add(line)
            records += 1
            if records % _TOLD_EVERY == 0:
                shown.tell(records, max(records, total))
            continue
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise refused(told["error"], "export")
        if "end" in told and told["end"]["records"] == records:
            return records
        break
    raise Unreachable(f"the export was cut after {records} records, and nothing was kept", "Run the command again.")


@contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """Lend the file to write; it takes its name in the end, and goes when something is raised."""
    if output == _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        return
    path = Path(output)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        # For its owner only: bodies may hold what nobody else should read.
        file = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")
    except OSError as error:
        raise CommandFailed(
            f"--output: cannot write {output}: {error.strerror}", "Name a file in a folder of yours."
        ) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandFailed(f"--output: cannot write {output}: {error.strerror}", "Nothing was kept.") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
