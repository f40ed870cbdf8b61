"""What a change came to, in words: in force or where not, what a dry run would do, and until when to confirm it.

Belongs here: telling the outcome of a write. Never here: making one, or the tables of a preview (those are `moves`).
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from gateway.cli import show
from gateway.cli.answers import Outcome
from gateway.cli.failures import REFUSED, CommandFailed
from gateway.cli.moves import print_preview, totals
from gateway.cli.options import DEFAULT_ADMIN_URL
from gateway.cli.spans import span_words


def report(outcome: Outcome, done: str, *, as_json: bool = False, previewed: bool = False) -> None:
    """Tell what a change came to; `done` is what was asked for, in words. With `previewed` only who would move.

    Raises:
        typer.Exit: with 1 when the change is made but some worker does not have it.
    """
    if previewed:
        _tell_preview(outcome, done, as_json)
        return
    if as_json:
        typer.echo(outcome.raw)
        if outcome.dry_run or outcome.in_force:
            return
    elif outcome.dry_run:
        _tell_dry_run(outcome, done)
        return
    elif not outcome.changed:
        show.say(f"{done}: nothing to change, so it stands (revision {outcome.revision})")
    elif outcome.in_force:
        show.say(f"{done}: in force everywhere, revision {outcome.revision}")
    if not outcome.in_force:
        _name_laggards(outcome, done)
    if not as_json and outcome.changed:
        _tell_terms(outcome)
    if not outcome.in_force:
        raise typer.Exit(REFUSED)


def print_documents(documents: Sequence[dict[str, Any]]) -> None:
    """Print what becomes of each document of a change."""
    rows = ((one["kind"], one["name"], one["outcome"], one.get("was")) for one in documents)
    show.grid("", ("kind", "name", "outcome", "was at revision"), rows, ("was at revision",))


def _tell_dry_run(outcome: Outcome, done: str) -> None:
    if not outcome.changed:
        show.say(f"{done}: nothing would change")
    else:
        print_documents([one for one in outcome.documents if one["outcome"] != "unchanged"])
    show.say("nothing was changed: this was only tried")


def _tell_preview(outcome: Outcome, done: str, as_json: bool) -> None:
    if outcome.preview is None and outcome.changed:
        raise CommandFailed(
            f"{done}: not done, and nobody can tell who would move",
            "The log of the gateway says why the records failed.",
        )
    preview = outcome.preview or {"callers_moved": 0, "requests_moved": 0, "models": []}
    if as_json:
        typer.echo(json.dumps(preview))
        return
    show.say(f"{done}: not done, only previewed" if outcome.changed else f"{done}: nothing would change")
    print_preview(preview)


def _tell_terms(outcome: Outcome) -> None:
    if outcome.preview is not None:
        show.say(f"  moves {totals(outcome.preview)}")
    if outcome.confirm_within_s is None:
        return
    until = datetime.now(UTC) + timedelta(seconds=outcome.confirm_within_s)
    models = [one["name"] for one in outcome.documents if one["kind"] == "route"]
    command = "pointsman" if outcome.admin_url == DEFAULT_ADMIN_URL else f"pointsman --admin-url {outcome.admin_url}"
    model = models[0] if models else "MODEL"
    show.say(
        f"  It is taken back by itself at {until:%Y-%m-%dT%H:%M:%SZ}, in {span_words(outcome.confirm_within_s)}, "
        "unless it is confirmed."
    )
    show.say(f"  let it stand:      {command} routes confirm {model}")
    show.say(f"  take it back now:  {command} routes rollback {model}")


def _name_laggards(outcome: Outcome, done: str) -> None:
    show.complain(f"{done}: made as revision {outcome.revision}, but not in force everywhere yet")
    for worker, why in sorted(outcome.laggards.items()):
        typer.echo(f"  {show.plain(worker)}: {show.plain(why)}", err=True)
    if outcome.laggards:
        typer.echo("  Those workers go on with the rules they had. Mend the cause, or change the route back.", err=True)
    else:
        typer.echo("  No worker is alive to take it. Look at the gateway's log.", err=True)
