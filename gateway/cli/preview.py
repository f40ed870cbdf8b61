"""`pointsman routes preview`: whom documents in files would move, before they are put in force.

Belongs here: the command. Never here: how a preview looks (`moves`), or who moves; the admin API says that.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.changes import Files
from gateway.cli.documents import read_documents, read_lines
from gateway.cli.moves import print_preview
from gateway.cli.options import AdminUrl, AsJson, connect, example
from gateway.cli.spans import parse_span


def register(commands: typer.Typer) -> None:
    """Add the command to `pointsman routes`."""
    commands.command(
        epilog=example(
            "pointsman routes preview digits.yaml",
            "pointsman routes preview rules/ --window 24h",
            "pointsman routes preview digits.yaml --keys callers.txt --json",
        )
    )(preview)


def window_seconds(text: str) -> int:
    """Return how far back records are looked at. Raises `typer.BadParameter`."""
    span = parse_span(text)
    seconds = int(span.total_seconds()) if span is not None else 0
    if not 1 <= seconds <= 366 * 24 * 3600:
        raise typer.BadParameter(f"{text!r}: expected a span from 1s to 366d, such as 1h")
    return seconds


def preview(
    context: typer.Context,
    *,
    files: Files,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Routing keys, one a line, in the place of recorded requests.", metavar="FILE"),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            help="How far back recorded requests are looked at: 90s, 15m, 1h, 7d.",
            metavar="SPAN",
            show_default="1h",
            parser=window_seconds,
        ),
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Say how many callers routes and cohorts would move, from which version to which. Changes nothing.

    The requests of the last hour are decided again under the present rules and under the new ones, by the code that
    serves.
    """
    question: dict[str, Any] = {"documents": read_documents(files)}
    if keys is not None:
        question["keys"] = read_lines(keys)
    if window is not None:
        question["window_s"] = window
    with connect(context, admin_url) as client:
        reading = client.ask("changes", "preview", question=question)
    if as_json:
        typer.echo(reading.raw)
    else:
        print_preview(reading.document)
