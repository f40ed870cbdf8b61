"""`pointsman cohorts`: named sets of callers, shared by all models.

Belongs here: these commands. Never here: who is in a cohort; that is `routing.resolve`'s to say.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.documents import SUFFIXES, read_document, read_lines
from gateway.cli.edits import require_revision
from gateway.cli.failures import Misuse
from gateway.cli.options import Actor, AdminUrl, AsJson, CohortName, Comment, IfRevision, connect, example, model_name
from gateway.cli.outcomes import report

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Cohorts: named sets of callers.")


@commands.command(
    name="set",
    epilog=example(
        "pointsman cohorts set beta --key u-17 --key u-18",
        "pointsman cohorts set acme --match x-tenant=acme,acme-test",
        "pointsman cohorts set staff --keys-file staff.txt",
        "pointsman cohorts set beta.yaml",
    ),
)
def set_cohort(
    context: typer.Context,
    *,
    name: Annotated[
        str,
        typer.Argument(help="The cohort's name; or a file, JSON or YAML (- is standard input).", metavar="NAME|FILE"),
    ],
    key: Annotated[
        list[str] | None, typer.Option("--key", help="A routing key; may be repeated.", metavar="KEY")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys-file", help="Routing keys, one a line; - is standard input.", metavar="FILE")
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option("--match", help="A header that must have one of these values; may be repeated.", metavar="H=V,V"),
    ] = None,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Say who is in a cohort: listed routing keys, or callers for whom every --match holds. Replaces what it was."""
    given = key or keys_file or match
    document = _cohort(name, key or [], keys_file, match or []) if given else _from_file(name)
    with connect(context, admin_url, actor, comment) as client:
        present = client.find("cohorts", document["name"])
        require_revision(document["name"], present, if_revision)
        outcome = client.put(
            "cohorts", document["name"], document=document, expect=present.revision if present else None
        )
    report(outcome, f"cohort {document['name']} {'set' if present else 'made'}", as_json=as_json)


@commands.command(name="show", epilog=example("pointsman cohorts show beta", "pointsman cohorts show beta --json"))
def show_cohort(
    context: typer.Context, *, name: CohortName, as_json: AsJson = False, admin_url: AdminUrl = None
) -> None:
    """Show who is in a cohort."""
    with connect(context, admin_url) as client:
        reading = client.read("cohorts", name)
    if as_json:
        typer.echo(reading.raw)
        return
    cohort = reading.document
    show.facts([("cohort", cohort["name"]), ("revision", reading.revision), ("keys", len(cohort.get("keys", [])))])
    show.grid("listed routing keys", ("key",), ([listed] for listed in cohort.get("keys", [])))
    clauses = ((clause["header"], ", ".join(clause["in"])) for clause in cohort.get("match", []))
    show.grid("or all of", ("header", "is one of"), clauses)


@commands.command(name="list", epilog=example("pointsman cohorts list", "pointsman cohorts list --json"))
def list_cohorts(context: typer.Context, *, as_json: AsJson = False, admin_url: AdminUrl = None) -> None:
    """List the cohorts."""
    with connect(context, admin_url) as client:
        reading = client.read("cohorts")
    if as_json:
        typer.echo(reading.raw)
        return
    cohorts = reading.document["cohorts"]
    show.grid("", ("cohort", "revision", "keys", "match"), (_row(cohort) for cohort in cohorts), ("revision", "keys"))
    if not cohorts:
        show.say("no cohorts yet; make one with: pointsman cohorts set NAME --key KEY")


@commands.command(epilog=example("pointsman cohorts delete beta -m 'acceptance is over'"))
def delete(
    context: typer.Context,
    *,
    name: CohortName,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Delete a cohort that no route pins."""
    with connect(context, admin_url, actor, comment) as client:
        present = client.read("cohorts", name)
        require_revision(name, present, if_revision)
        outcome = client.delete("cohorts", name, expect=present.revision)
    report(outcome, f"cohort {name} deleted", as_json=as_json)


def _cohort(name: str, keys: list[str], keys_file: Path | None, match: list[str]) -> dict[str, Any]:
    listed = [*keys, *(read_lines(keys_file) if keys_file else [])]
    return {"name": _legal(name), "keys": listed, "match": [_clause(text) for text in match]}


def _clause(text: str) -> dict[str, Any]:
    header, equals, values = text.partition("=")
    if not equals or not header or not values:
        raise Misuse(f"--match {text!r}: expected HEADER=VALUE[,VALUE...]", "Write for example --match x-tenant=acme.")
    return {"header": header, "in": values.split(",")}


def _from_file(name: str) -> dict[str, Any]:
    path = Path(name)
    if name != "-" and not path.exists() and path.suffix not in SUFFIXES:
        raise Misuse(
            f"cohort {name}: nothing says who is in it",
            "Pass --key, --keys-file or --match, or name a file with the whole cohort.",
        )
    document = read_document(path)
    return {**document, "name": _legal(document.get("name"), f"{name}: name: ")}


def _legal(name: object, where: str = "") -> str:
    try:
        return model_name(name if isinstance(name, str) else "")
    except typer.BadParameter as error:
        raise Misuse(f"{where}{error.message}", "Name the cohort.") from None


def _row(cohort: dict[str, Any]) -> tuple[object, ...]:
    clauses = "; ".join(f"{clause['header']} in {', '.join(clause['in'])}" for clause in cohort.get("match", []))
    return cohort["name"], cohort.get("revision"), len(cohort.get("keys", [])), clauses
