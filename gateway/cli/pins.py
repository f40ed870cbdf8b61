"""`pointsman routes pin, unpin, shadow, unshadow`: one pin or one shadow at a time.

Belongs here: these four commands. Never here: the edits themselves (`edits`), which know no command line.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gateway.cli.edits import edit_field, with_pin, with_shadow, without_pin, without_shadow
from gateway.cli.expiry import parse_expiry
from gateway.cli.failures import Misuse, Refusal
from gateway.cli.options import (
    Actor,
    AdminUrl,
    AsJson,
    CohortName,
    Comment,
    IfRevision,
    Model,
    Version,
    connect,
    example,
    model_name,
    version_name,
)
from gateway.cli.outcomes import report
from gateway.cli.terms import ConfirmWithin, MaxMoves, Preview, Terms
from gateway.cli.weights import parse_share, percent


def register(commands: typer.Typer) -> None:
    """Add the commands to `pointsman routes`."""
    commands.command(
        epilog=example(
            "pointsman routes pin digits beta=2 --expires 30d --owner risk --reason 'acceptance of 2'",
            "pointsman routes pin digits staff=3 --expires 2099-12-31T00:00:00Z --first",
            "pointsman routes pin digits beta=2 --preview",
        )
    )(pin)
    commands.command(epilog=example("pointsman routes unpin digits beta"))(unpin)
    commands.command(epilog=example("pointsman routes shadow digits 3=10"))(shadow)
    commands.command(epilog=example("pointsman routes unshadow digits 3"))(unshadow)


def pin(
    context: typer.Context,
    *,
    model: Model,
    pair: Annotated[str, typer.Argument(help="Which cohort, to which version.", metavar="COHORT=VERSION")],
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends: a time, or 90m, 12h, 30d from now.", metavar="WHEN")
    ] = None,
    owner: Annotated[str, typer.Option("--owner", help="Who answers for the pin.", metavar="NAME")] = "",
    reason: Annotated[str, typer.Option("--reason", help="What it is for.", metavar="TEXT")] = "",
    first: Annotated[bool, typer.Option("--first", help="Put it before all other pins.")] = False,
    preview: Preview = False,
    max_moves: MaxMoves = None,
    confirm_within: ConfirmWithin = None,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Serve a cohort by one version. A pin that the cohort has already is replaced in its place."""
    cohort, version = _pair(pair)
    new: dict[str, Any] = {"cohort": cohort, "version": version, "owner": owner, "reason": reason}
    if expires is not None:
        new["expires"] = parse_expiry(expires, datetime.now(UTC))
    terms = Terms(preview, preview, max_moves, confirm_within)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(
            client, model, "pins", lambda pins: with_pin(pins, new, first=first), expect=if_revision, terms=terms
        )
    until = f" until {new['expires']}" if expires else ""
    report(
        outcome, f"cohort {cohort} of {model} pinned to version {version}{until}", as_json=as_json, previewed=preview
    )


def unpin(
    context: typer.Context,
    *,
    model: Model,
    cohort: CohortName,
    preview: Preview = False,
    max_moves: MaxMoves = None,
    confirm_within: ConfirmWithin = None,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Take a cohort's pins away; its callers go back to the split."""
    change = _removing(without_pin, cohort, f"{model} has no pin for cohort {cohort}", model)
    terms = Terms(preview, preview, max_moves, confirm_within)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(client, model, "pins", change, expect=if_revision, terms=terms)
    report(outcome, f"cohort {cohort} of {model} unpinned", as_json=as_json, previewed=preview)


def shadow(
    context: typer.Context,
    *,
    model: Model,
    share: Annotated[str, typer.Argument(help="Percent of the requests to copy.", metavar="VERSION=PERCENT")],
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Send a version a copy of a share of the requests; its answers are recorded and never returned."""
    version, sample = parse_share(share)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(
            client, model, "shadows", lambda shadows: with_shadow(shadows, version, sample), expect=if_revision
        )
    report(outcome, f"version {version} of {model} shadows {percent(sample)} % of requests", as_json=as_json)


def unshadow(
    context: typer.Context,
    *,
    model: Model,
    version: Version,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Stop sending a version copies."""
    change = _removing(without_shadow, version, f"version {version} is no shadow of {model}", model)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(client, model, "shadows", change, expect=if_revision)
    report(outcome, f"version {version} of {model} is no shadow any more", as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    cohort, _, version = text.partition("=")
    try:
        return model_name(cohort), version_name(version)
    except typer.BadParameter as error:
        raise Misuse(f"{text!r}: expected COHORT=VERSION ({error.message})", "Write for example beta=2.") from None


def _removing(remove: Callable[[Any, str], Any], name: str, missing: str, model: str) -> Callable[[Any], Any]:
    """Return the edit that takes `name` away, and refuses when it is not there (a typing error, most likely)."""

    def change(present: Any) -> Any:
        left = remove(present, name)
        if len(left) == len(present or []):
            raise Refusal(missing, f"Look with: pointsman routes show {model}.", code="not_found")
        return left

    return change
