"""`pointsman rules republish, accept`: an operator's word on which rules are right, after the store lost some.

Belongs here: these commands, and being sure that somebody means it. Never here: whether the store is in doubt.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.answers import Outcome
from gateway.cli.client import AdminClient
from gateway.cli.failures import CommandFailed, Misuse
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, connect, example
from gateway.cli.outcomes import print_documents, report
from gateway.cli.terms import DryRun

commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Rules: which are right, after the store lost some."
)
_DOCUMENTS_SHOWN = 50

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking; needed where nobody can be asked.")]


@commands.command(
    epilog=example("pointsman rules republish --dry-run", "pointsman rules republish -m 'redis was emptied'")
)
def republish(
    context: typer.Context,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Write the last good rules of the gateway asked to the store, which lost them. A new life of the store begins."""
    with connect(context, admin_url, actor, comment) as client:
        _resettle(client, "republish", dry_run, yes, as_json)


@commands.command(epilog=example("pointsman rules accept --dry-run", "pointsman rules accept -m 'restored on purpose'"))
def accept(
    context: typer.Context,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Take the rules that the store has now for right; every gateway follows them. A new life of the store begins."""
    with connect(context, admin_url, actor, comment) as client:
        _resettle(client, "accept", dry_run, yes, as_json)


_WHAT = {
    "republish": ("in the store", "the last good rules written to the store"),
    "accept": ("of the rules in force", "the rules of the store accepted"),
}


def _resettle(client: AdminClient, verb: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    where, done = _WHAT[verb]
    if dry_run or not yes:
        tried = client.post("rules", verb, document={"dry_run": True})
        if as_json and dry_run:
            typer.echo(tried.raw)
            return
        _print_changes(tried.answer["changes"], where, to_stderr=as_json)
        if dry_run:
            show.say("nothing was changed: this was only tried")
            return
        _make_sure(verb)
    outcome = client.post("rules", verb, document={"dry_run": False})
    published = outcome.answer["published"] or {}
    report(Outcome(published, outcome.raw, False, outcome.in_force, client.url), done, as_json=as_json)


def _print_changes(changes: Sequence[dict[str, Any]], where: str, *, to_stderr: bool) -> None:
    if to_stderr:  # standard output is the program's that asked for JSON
        typer.echo(_count(changes, where), err=True)
        return
    show.say(_count(changes, where))
    print_documents(changes[:_DOCUMENTS_SHOWN])
    if len(changes) > _DOCUMENTS_SHOWN:
        show.say(f"and {len(changes) - _DOCUMENTS_SHOWN} more (--dry-run --json lists all)")


def _count(changes: Sequence[dict[str, Any]], where: str) -> str:
    documents = f"{len(changes)} document{'' if len(changes) == 1 else 's'}" if changes else "no document"
    return f"{documents} {where} would change"


def _make_sure(verb: str) -> None:
    if not sys.stdin.isatty():
        raise Misuse(f"rules {verb}: nobody can be asked whether this is meant", "Pass --yes if it is.")
    if typer.prompt(f"Type yes to {verb}", err=True).strip() != "yes":
        raise CommandFailed(f"rules {verb}: not confirmed; nothing was changed")
