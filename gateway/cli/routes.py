"""`pointsman routes`: look at the route of a model, and move its weights.

Belongs here: these commands and how a route looks. The other commands of the group each stand in a file of their own.
"""

from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.edits import edit_field
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, IfRevision, Model, connect, example
from gateway.cli.outcomes import report
from gateway.cli.terms import ConfirmWithin, MaxMoves, Preview, Terms
from gateway.cli.weights import parse_split, percent, split_words

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Routes: which version serves which caller.")


@commands.command(
    name="show",
    epilog=example(
        "pointsman routes show digits",
        "pointsman routes show digits --json",
        "pointsman routes show digits --revision 41",
    ),
)
def show_route(
    context: typer.Context,
    *,
    model: Model,
    revision: Annotated[
        int | None, typer.Option("--revision", help="The route as it was at this revision.", metavar="N", min=1)
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Show the route in force, or one of the past: split, pins, shadows, and where the routing key comes from."""
    params = {"revision": str(revision)} if revision is not None else {}
    with connect(context, admin_url) as client:
        reading = client.read("routes", model, params=params)
    if as_json:
        typer.echo(reading.raw)
    else:
        _print_route(reading.document, reading.revision)


@commands.command(
    epilog=example(
        "pointsman routes weights digits 1=90 2=10 -m 'first ten percent'",
        "pointsman routes weights digits 1=50 2=50 --preview",
        "pointsman routes weights digits 1=50 2=50 --max-moves 500 --confirm-within 15m",
        "pointsman routes weights digits 1=87.5 2=12.5 --if-revision 7",
    )
)
def weights(
    context: typer.Context,
    *,
    model: Model,
    shares: Annotated[list[str], typer.Argument(help="Percent, up to two decimals.", metavar="VERSION=PERCENT")],
    preview: Preview = False,
    max_moves: MaxMoves = None,
    confirm_within: ConfirmWithin = None,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Set the split. The percentages sum to 100; a version that is not named leaves the split."""
    split = parse_split(shares)
    terms = Terms(preview, preview, max_moves, confirm_within)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(client, model, "split", lambda _: split, expect=if_revision, terms=terms)
    report(outcome, f"split of {model} {split_words(split)}", as_json=as_json, previewed=preview)


def _retries(route: dict[str, Any]) -> str | None:
    times = route.get("retries")
    if times is None:
        return None  # a route of before there were any
    if not times:
        return "never"
    return f"up to {times} ×" + ("" if route.get("idempotent") else ", only what reached no backend")


def _print_route(route: dict[str, Any], revision: int | None) -> None:
    capture = route.get("capture", {})
    show.facts(
        [
            ("model", route["model"]),
            ("revision", revision),
            ("routing key", ", ".join(f"header {source['header']}" for source in route.get("key", []))),
            ("salt", route.get("salt")),
            (
                "versions named by callers",
                {"allow": "allowed", "deny": "refused"}.get(route.get("client_versions", "")),
            ),
            ("fallback", ", ".join(route.get("fallback", []))),
            ("time-out", f"{route['timeout_ms']} ms" if "timeout_ms" in route else None),
            ("tried again on the same version", _retries(route)),
            (
                "kept of bodies",
                ", ".join(f"{side} {capture[side]}" for side in ("request", "response") if side in capture),
            ),
        ]
    )
    show.grid("split", ("version", "share"), ((v, f"{percent(w)} %") for v, w in route["split"].items()), ("share",))
    columns = ("#", "cohort", "version", "expires", "owner", "reason")
    show.grid(
        "pins, the first that holds the caller wins",
        columns,
        ([index, *(pin.get(column) for column in columns[1:])] for index, pin in enumerate(route.get("pins", []))),
        ("#",),
    )
    samples = ((shadow["version"], f"{percent(shadow['sample'])} %") for shadow in route.get("shadows", []))
    show.grid("shadows", ("version", "sample"), samples, ("sample",))
