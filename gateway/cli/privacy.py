"""`pointsman audit erase, prune`: taking contents and records out.

Belongs here: these commands, and asking before something is gone for good. Never here: what is taken.
"""

import sys
from typing import Annotated

import typer

from gateway.cli import show
from gateway.cli.failures import CommandFailed, Misuse
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, connect, example

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be pruned.")]


def register(commands: typer.Typer) -> None:
    """Add the commands to `pointsman audit`."""
    commands.command(
        epilog=example(
            "pointsman audit erase --unit-key ann --yes -m 'request of 12 May'",
            "pointsman audit erase --request-id hello-1 --yes",
        )
    )(erase)
    commands.command(epilog=example("pointsman audit prune --dry-run", "pointsman audit prune"))(prune)


def erase(
    context: typer.Context,
    *,
    unit_key: Annotated[
        str | None, typer.Option("--unit-key", help="Everything of the caller with this routing key.", metavar="KEY")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="One request, by any of its ids.", metavar="ID")
    ] = None,
    yes: Yes = False,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Erase bodies for good, with their digests. The records stay and still verify; the erasure is recorded."""
    if (unit_key is None) == (request_id is None):
        raise Misuse("audit erase: whose contents?", "Name either --unit-key or --request-id.")
    question = {"unit_key": unit_key} if unit_key is not None else {"request_id": request_id}
    if not yes:
        _make_sure()
    with connect(context, admin_url, actor, comment) as client:
        reading = client.ask("audit", "erase", question=question)
    if as_json:
        typer.echo(reading.raw)
        return
    erased = reading.document
    before = erased["places"] - erased["records"]
    rest = f" ({before} had none any more)" if before else ""
    show.say(f"erased the contents of {erased['records']} records{rest}; control record {erased['erasure']}")


def _make_sure() -> None:
    if not sys.stdin.isatty():
        raise Misuse("audit erase: nobody can be asked whether this is meant", "Pass --yes if it is.")
    if typer.prompt("Type yes to erase for good", err=True).strip() != "yes":
        raise CommandFailed("audit erase: not confirmed; nothing was erased")


def prune(
    context: typer.Context,
    *,
    dry_run: DryRun = False,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Prune records whose time is over by the settings now, instead of within the hour. It is recorded."""
    with connect(context, admin_url, actor, comment) as client:
        reading = client.ask("audit", "prune", question={"dry_run": dry_run})
    if as_json:
        typer.echo(reading.raw)
        return
    pruned = reading.document["pruned"]
    rows = ((one["day"], "all" if one["whole"] else ", ".join(one["models"]), one["records"]) for one in pruned)
    show.grid("would be pruned" if dry_run else "pruned", ("day", "models", "records"), rows, ("records",))
    if not pruned:
        show.say("nothing is over")
