"""`pointsman routes explain`: which version serves a request, or served it, and rule by rule why.

Belongs here: the command and how an explanation looks. Never here: a decision; the admin API runs the code that serves.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.failures import Misuse
from gateway.cli.options import AdminUrl, AsJson, Model, connect, example, version_name


def register(commands: typer.Typer) -> None:
    """Add the command to `pointsman routes`."""
    commands.command(
        epilog=example(
            "pointsman routes explain digits --key u-17",
            "pointsman routes explain digits --key u-17 --header 'x-tenant: acme' --json",
            "pointsman routes explain digits --key u-17 --at 41",
            "pointsman routes explain digits --request-id hello-1",
        )
    )(explain)


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
    request_id: Annotated[
        str | None,
        typer.Option(
            "--request-id",
            help="A request that was recorded, by any id that `audit show` takes; under the rules of then.",
            metavar="ID",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", help="Under the rules of a revision, or of a time.", metavar="REVISION|TIME"),
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Say which version would serve a request, and rule by rule why; the code is that of live traffic."""
    described = {"key": key, "headers": dict(_header(text) for text in header or []), "version": version}
    question: dict[str, Any] = {name: value for name, value in described.items() if value}
    if request_id is not None:
        if question:
            raise Misuse("--request-id: the record says what the caller sent", "Leave --key, --header, --version out.")
        question["request_id"] = request_id
    if at is not None:
        question["at"] = int(at) if at.isascii() and at.isdigit() else at
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


def _print_explanation(model: str, explanation: dict[str, Any]) -> None:
    decision = explanation.get("decision")
    show.grid(
        f"rules of {model} at revision {explanation['revision']}{_moment(explanation)}, in order",
        ("rule", "matched", "why"),
        ((step["rule"], "yes" if step["matched"] else "no", step["why"]) for step in explanation["steps"]),
    )
    scores = sorted(explanation["scores"].items(), key=lambda pair: (pair[1], pair[0]))
    decided = decision is not None and decision["reason"] in {"split", "brake"}
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
        instead = f" instead of {decision['instead_of']}" if decision.get("instead_of") else ""
        show.say(
            f"version {decision['version']}{instead}, reason {decision['reason']}, rule {decision['rule']}{cohort}"
        )
    _print_recorded(explanation)


def _moment(explanation: Mapping[str, Any]) -> str:
    """Return when the rules were those that are explained; nothing for those of now."""
    if explanation["moment"] == "now":
        return ""
    return f" (rules revision {explanation['rules_revision']}, at {explanation['at']})"


def _print_recorded(explanation: Mapping[str, Any]) -> None:
    recorded = explanation.get("recorded")
    if recorded is None:
        return
    said = f"version {recorded['version']}, reason {recorded['reason']}" if recorded["reason"] else "refused"
    agreement = "the same" if explanation["agrees"] else "which is NOT the same"
    show.say(f"record {recorded['record_id']} says: {said}; {agreement}")
    if headers := explanation.get("unknown_headers"):
        show.say(f"warning: these rules look at headers that the record does not have ({', '.join(headers)})")
