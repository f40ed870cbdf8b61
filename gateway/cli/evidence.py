"""`pointsman audit recompute, replay`: were the rules followed, and does the model really say that?

Belongs here: these commands. Never here: how a replay looks (`replays`), or a judgement.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.failures import REFUSED, Misuse
from gateway.cli.job import follow
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, connect, example
from gateway.cli.replays import print_replay, print_trial
from gateway.times import moment

Since = Annotated[
    str | None, typer.Option("--from", help="Received since: 24h, 30d, or 2026-10-01T00:00:00Z.", metavar="TIME")
]
Until = Annotated[str | None, typer.Option("--to", help="Received before.", metavar="TIME")]
OfModel = Annotated[str | None, typer.Option("--model", help="Of this model.", metavar="MODEL")]


def register(commands: typer.Typer) -> None:
    """Add the commands to `pointsman audit`."""
    commands.command(
        epilog=example("pointsman audit recompute --from 24h", "pointsman audit recompute --model digits --json")
    )(recompute)
    commands.command(
        epilog=example(
            "pointsman audit replay hello-1",
            "pointsman audit replay hello-1 --version 3",
            "pointsman audit replay --from 24h --version 3 --sample 1000",
        )
    )(replay)


def stretch(since: str | None, until: str | None, model: str | None) -> dict[str, str]:
    """Return a stretch of records as the admin API has it in a query."""
    given = {"from": since, "to": until, "model": model}
    return {name: value for name, value in given.items() if value is not None}


def recompute(
    context: typer.Context,
    *,
    since: Since = None,
    until: Until = None,
    model: OfModel = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Decide every recorded request again by the rules of then, and say which records differ (exit 1)."""
    with connect(context, admin_url, actor, comment) as client:
        result = follow(client, "recompute", stretch(since, until, model), "deciding")
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_recomputed(result)
    if result["differ"] or result["archive"]["differences"]:
        raise typer.Exit(REFUSED)


def _print_recomputed(result: Mapping[str, Any]) -> None:
    unchecked, undecided = sum(result["unchecked"].values()), sum(result["undecided"].values())
    show.say(f"{result['checked']} checked, {result['differ']} differ, {unchecked} could not be checked")
    for why, count in result["unchecked"].items():
        show.say(f"  {count} could not be checked: {why}")
    if undecided:
        show.say(f"{undecided} more hold no decision")
    for why, count in result["undecided"].items():
        show.say(f"  {count} {why}")
    archive = result["archive"]
    show.say(f"{archive['agreed']} revisions of the rules are archived as the log tells of them")
    show.grid(
        "records that do not say what the rules give",
        ("received", "record", "role", "model", "revision", "why"),
        (
            (moment(one["received_ns"]), one["record_id"], one["role"], one["model"], one["revision"], one["why"])
            for one in result["differences"]
        ),
        ("revision",),
    )
    if result["left_out"]:
        show.say(f"and {result['left_out']} more")
    show.grid(
        "revisions of the rules that are not archived as the log tells of them",
        ("revision", "why"),
        ((one["revision"], one["why"]) for one in archive["differences"]),
        ("revision",),
    )


def replay(
    context: typer.Context,
    *,
    any_id: Annotated[
        str | None,
        typer.Argument(
            help="A record id, request id, or the id in an inference body; without it, many are replayed.", metavar="ID"
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Also (or, for many, only) on this version.", metavar="VERSION")
    ] = None,
    since: Since = None,
    until: Until = None,
    model: OfModel = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", help="How many of them.", metavar="N", min=1, show_default="1000"),
    ] = None,
    allow_backend: Annotated[
        bool, typer.Option("--allow-backend", help="Call live backends, for versions that run there.")
    ] = False,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Run recorded input again: one record on its own version, or many on another; differences end with exit 1."""
    params = _asked(any_id, version, stretch(since, until, model), sample) | (
        {"allow_backend": "true"} if allow_backend else {}
    )
    with connect(context, admin_url, actor, comment) as client:
        result = follow(client, "replay", params, "replaying")
    if as_json:
        typer.echo(json.dumps(result))
    elif any_id is not None:
        print_replay(result)
    else:
        print_trial(result)
    if not result["agrees"]:
        raise typer.Exit(REFUSED)


def _asked(any_id: str | None, version: str | None, wanted: dict[str, str], sample: int | None) -> dict[str, str]:
    named = {"version": version} if version is not None else {}
    if any_id is None:
        if version is None:
            raise Misuse("audit replay: what?", "Name a record, or --version to replay many records on.")
        return {**wanted, **named, **({"sample": str(sample)} if sample is not None else {})}
    if wanted or sample is not None:
        option = f"--{next(iter(wanted), 'sample')}"
        raise Misuse(f"{option}: is for many records, and {any_id} is one", "Leave either out.")
    return {"id": any_id, **named}
