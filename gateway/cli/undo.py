"""`pointsman routes rollback, promote, confirm`: going back, going all the way, and letting a change stand.

Belongs here: these three commands. Never here: what a route was at a revision; the admin API knows.
"""

from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.edits import edit_field
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, IfRevision, Model, Version, connect, example
from gateway.cli.outcomes import report
from gateway.cli.terms import ConfirmWithin, DryRun, MaxMoves, Preview, Terms
from routing.types import BASIS_POINTS


class CohortChoice(StrEnum):
    """What becomes of cohorts that other models' routes pin, too, when a route goes back."""

    RESTORE = "restore"
    KEEP = "keep"


def register(commands: typer.Typer) -> None:
    """Add the commands to `pointsman routes`."""
    commands.command(
        epilog=example(
            "pointsman routes rollback digits -m 'errors went up'",
            "pointsman routes rollback digits --to 41 --dry-run",
            "pointsman routes rollback digits --to 41 --cohorts restore --confirm-within 15m",
        )
    )(rollback)
    commands.command(
        epilog=example(
            "pointsman routes promote digits 2 -m 'canary was fine'",
            "pointsman routes promote digits 2 --confirm-within 15m",
        )
    )(promote)
    commands.command(epilog=example("pointsman routes confirm digits"))(confirm)


def rollback(
    context: typer.Context,
    *,
    model: Model,
    to: Annotated[
        int | None,
        typer.Option("--to", help="As it was at this revision; else before its last change.", metavar="N", min=1),
    ] = None,
    cohorts: Annotated[
        CohortChoice | None,
        typer.Option("--cohorts", help="What becomes of pinned cohorts that other models pin, too."),
    ] = None,
    dry_run: DryRun = False,
    preview: Preview = False,
    max_moves: MaxMoves = None,
    confirm_within: ConfirmWithin = None,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Bring a route and the cohorts that it pins back as they were, as a new revision.

    The same callers get the same versions again. An unconfirmed change is taken back at once.
    """
    terms = Terms(dry_run or preview, preview, max_moves, confirm_within)
    document: dict[str, Any] = terms.fields()
    if to is not None:
        document["to"] = to
    if cohorts is not None:
        document["cohorts"] = cohorts.value
    with connect(context, admin_url, actor, comment) as client:
        outcome = client.post("routes", model, "rollback", document=document, expect=if_revision)
    where = f"revision {to}" if to is not None else "what it was before its last change"
    report(outcome, f"route of {model} rolled back to {where}", as_json=as_json, previewed=preview)


def promote(
    context: typer.Context,
    *,
    model: Model,
    version: Version,
    preview: Preview = False,
    max_moves: MaxMoves = None,
    confirm_within: ConfirmWithin = None,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Give one version the whole split at once. Pins stay as they are."""
    terms = Terms(preview, preview, max_moves, confirm_within)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(client, model, "split", lambda _: {version: BASIS_POINTS}, expect=if_revision, terms=terms)
    report(outcome, f"version {version} of {model} promoted", as_json=as_json, previewed=preview)


def confirm(
    context: typer.Context,
    *,
    model: Model,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Let the change of a route stand that was made with --confirm-within."""
    with connect(context, admin_url, actor, comment) as client:
        outcome = client.post("routes", model, "confirm", document={})
    if as_json:
        typer.echo(outcome.raw)
    else:
        show.say(f"route of {model}: confirmed, revision {outcome.revision} stands")
