"""`pointsman routes history, diff`: what changed, when, by whom and why.

Belongs here: these commands and how a history and a difference look. Never here: working out a difference.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.options import AdminUrl, AsJson, Model, connect, example


def register(commands: typer.Typer) -> None:
    """Add the commands to `pointsman routes`."""
    commands.command(
        epilog=example("pointsman routes history digits", "pointsman routes history digits --limit 100 --json")
    )(history)
    commands.command(epilog=example("pointsman routes diff digits 41", "pointsman routes diff digits 41 44"))(diff)


def history(
    context: typer.Context,
    *,
    model: Model,
    limit: Annotated[int, typer.Option("--limit", help="How many changes at most.", metavar="N", min=1, max=500)] = 20,
    before: Annotated[
        int | None, typer.Option("--before", help="Only changes before this revision.", metavar="N", min=1)
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """List the changes of a model's route, its versions and the cohorts that it pins, newest first."""
    params = {"limit": str(limit)} | ({"before": str(before)} if before is not None else {})
    with connect(context, admin_url) as client:
        reading = client.read("routes", model, "history", params=params)
    if as_json:
        typer.echo(reading.raw)
        return
    changes = reading.document["revisions"]
    show.grid(
        "",
        ("revision", "at", "who", "what", "callers moved", "why"),
        (_row(change) for change in changes),
        ("revision", "callers moved"),
    )
    if not changes:
        show.say(f"no change of {model} {'before that' if before is not None else 'yet'}")
    if reading.document["next"] is not None:
        show.say(f"older: pointsman routes history {model} --before {reading.document['next']}")


def diff(
    context: typer.Context,
    *,
    model: Model,
    older: Annotated[int, typer.Argument(help="A revision.", metavar="REVISION", min=1)],
    newer: Annotated[
        int | None, typer.Argument(help="Another one; without it, the route of now.", metavar="REVISION", min=1)
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Show field by field in what a route differs between two revisions."""
    params = {"from": str(older)} | ({"to": str(newer)} if newer is not None else {})
    with connect(context, admin_url) as client:
        reading = client.read("routes", model, "diff", params=params)
    if as_json:
        typer.echo(reading.raw)
        return
    then, now = f"revision {older}", f"revision {newer}" if newer is not None else "now"
    differences = reading.document["differences"]
    show.grid(
        "",
        ("field", then, now),
        ((one["path"], _value(one, "before"), _value(one, "after")) for one in differences),
    )
    if not differences:
        show.say(f"the route of {model} is the same at {then} and {now if newer is not None else 'now'}")


def what_changed(changes: Sequence[Mapping[str, Any]], most: int = 3) -> str:
    """Return in a few words which documents a revision made, changed or deleted."""
    words = [f"{one['kind']} {one['name']} {one['outcome']}" for one in changes[:most]]
    return ", ".join([*words, *([f"{len(changes) - most} more"] if len(changes) > most else [])])


def what_waits(documents: Sequence[Sequence[str]], most: int = 3) -> str:
    """Return in a few words which documents these kinds and names are."""
    words = [f"{kind} {name}" for kind, name in documents[:most]]
    return ", ".join([*words, *([f"{len(documents) - most} more"] if len(documents) > most else [])])


def _row(change: Mapping[str, Any]) -> tuple[object, ...]:
    moved = change["preview"]["callers_moved"] if change["preview"] else None
    what = what_changed(change["changes"])
    return change["revision"], change["at"], change["actor"], what, moved, change["comment"]


def _value(difference: Mapping[str, Any], side: str) -> str | None:
    """Return a value as its document has it; None where the field was not there."""
    if side not in difference:
        return None
    value = difference[side]
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
