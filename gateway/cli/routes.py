"""`pointsman routes`: look at the route of a model, apply one, move its weights, explain a decision.

Belongs here: these commands and how a route and an explanation look. Pins and shadows stand in `pins`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.documents import read_document
from gateway.cli.edits import edit_field, require_revision
from gateway.cli.failures import Misuse
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, IfRevision, Model, connect, example, version_name
from gateway.cli.weights import parse_split, percent, split_words

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Routes: which version serves which caller.")


@commands.command(name="show", epilog=example("pointsman routes show digits", "pointsman routes show digits --json"))
def show_route(context: typer.Context, *, model: Model, as_json: AsJson = False, admin_url: AdminUrl = None) -> None:
    """Show the route in force: split, pins, shadows, and where the routing key comes from."""
    with connect(context, admin_url) as client:
        reading = client.read("routes", model)
    if as_json:
        typer.echo(reading.raw)
    else:
        _print_route(reading.document, reading.revision)


@commands.command(
    epilog=example(
        "pointsman routes apply digits.yaml -m 'first route'",
        "pointsman routes show digits --json | jq '.timeout_ms = 500' | pointsman routes apply -",
    )
)
def apply(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="The route, JSON or YAML; - is standard input.", metavar="FILE")],
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Put a whole route in force, in the place of the present one if there is one."""
    document = read_document(file)
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise Misuse(f"{file}: model: required field is missing or no text", "Say which model the route is for.")
    with connect(context, admin_url, actor, comment) as client:
        present = client.find("routes", model)
        require_revision(model, present, if_revision)
        outcome = client.put("routes", model, document=document, expect=present.revision if present else None)
    show.report(outcome, f"route of {model} {'applied' if present else 'made'}", as_json=as_json)


@commands.command(
    epilog=example(
        "pointsman routes weights digits 1=90 2=10 -m 'first ten percent'",
        "pointsman routes weights digits 1=87.5 2=12.5 --if-revision 7",
    )
)
def weights(
    context: typer.Context,
    *,
    model: Model,
    shares: Annotated[list[str], typer.Argument(help="Percent, up to two decimals.", metavar="VERSION=PERCENT")],
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Set the split. The percentages sum to 100; a version that is not named leaves the split."""
    split = parse_split(shares)
    with connect(context, admin_url, actor, comment) as client:
        outcome = edit_field(client, model, "split", lambda _: split, expect=if_revision)
    show.report(outcome, f"split of {model} {split_words(split)}", as_json=as_json)


@commands.command(
    epilog=example(
        "pointsman routes explain digits --key u-17",
        "pointsman routes explain digits --key u-17 --header 'x-tenant: acme' --json",
    )
)
def explain(
    context: typer.Context,
    *,
    model: Model,
    key: Annotated[str | None, typer.Option("--key", help="The caller's routing key.", metavar="KEY")] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", help="A header of the request; may be repeated.", metavar="NAME:VALUE"),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", help="A version named by the caller.", metavar="VERSION", parser=version_name),
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Say which version would serve a request, and rule by rule why; the code is that of live traffic."""
    question: dict[str, Any] = {"headers": dict(_header(text) for text in header or [])}
    question |= {name: value for name, value in (("key", key), ("version", version)) if value is not None}
    with connect(context, admin_url) as client:
        reading = client.ask("routes", model, "explain", question=question)
    if as_json:
        typer.echo(reading.raw)
    else:
        _print_explanation(model, reading.document)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Misuse(f"--header {text!r}: expected NAME:VALUE", "Write for example --header 'x-tenant: acme'.")
    return name.strip().lower(), value.strip()


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


def _print_explanation(model: str, explanation: dict[str, Any]) -> None:
    decision = explanation.get("decision")
    show.grid(
        f"rules of {model} at revision {explanation['revision']}, in order",
        ("rule", "matched", "why"),
        ((step["rule"], "yes" if step["matched"] else "no", step["why"]) for step in explanation["steps"]),
    )
    scores = sorted(explanation["scores"].items(), key=lambda pair: (pair[1], pair[0]))
    decided = decision is not None and decision["reason"] == "split"
    show.grid(
        "scores of the split, the smallest wins" if decided else "scores of the split, which did not come to decide",
        ("version", "score"),
        ((version, f"{score:.6g}") for version, score in scores),
        ("score",),
    )
    if explanation["shadows"]:
        show.say(f"copies to: {', '.join(explanation['shadows'])}")
    if decision is None:
        show.say("refused: the route does not let callers name a version")
    else:
        cohort = f" (cohort {decision['cohort']})" if decision.get("cohort") else ""
        show.say(f"version {decision['version']}, reason {decision['reason']}, rule {decision['rule']}{cohort}")
