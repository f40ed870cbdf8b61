"""`pointsman routes apply`: documents from files put in force together, all or none.

Belongs here: the command, and telling what becomes of each document. Never here: reading files (`documents`), or
whether documents are legal.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.answers import Outcome
from gateway.cli.documents import read_documents
from gateway.cli.failures import Misuse, Refusal
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, IfRevision, connect, example
from gateway.cli.outcomes import print_documents, report
from gateway.cli.terms import ConfirmWithin, DryRun, MaxMoves, Preview, Terms

Files = Annotated[
    list[Path],
    typer.Argument(
        help="Routes, cohorts and versions, JSON or YAML, several in a file or a folder; - is standard input.",
        metavar="FILE",
    ),
]


def register(commands: typer.Typer) -> None:
    """Add the command to `pointsman routes`."""
    commands.command(
        epilog=example(
            "pointsman routes apply digits.yaml -m 'first route'",
            "pointsman routes apply rules/ --dry-run",
            "pointsman routes apply rules/ --max-moves 500 --confirm-within 15m -m 'release 42'",
            "pointsman routes show digits --json | jq '.timeout_ms = 500' | pointsman routes apply -",
        )
    )(apply)


def apply(
    context: typer.Context,
    *,
    files: Files,
    dry_run: DryRun = False,
    preview: Preview = False,
    max_moves: MaxMoves = None,
    confirm_within: ConfirmWithin = None,
    allow_incomplete: Annotated[
        bool,
        typer.Option("--allow-incomplete", help="Take manifests without their metadata contract; lists will say so."),
    ] = False,
    if_revision: IfRevision = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Put documents in force, all or none, as one revision. What is in force already makes none.

    Each document takes the place of the one in force; what the files do not name stays as it is. --if-revision is for
    one route alone.
    """
    documents = read_documents(files)
    for document in documents:
        _check_named(document)
    if if_revision is not None and (len(documents) != 1 or _kind(documents[0]) != "route"):
        raise Misuse("--if-revision: it names the revision of one route", "Apply that route alone.")
    question = {"documents": documents, "allow_incomplete": allow_incomplete}
    tried = Terms(dry_run=True, preview=preview, max_moves=max_moves if dry_run or preview else None)
    with connect(context, admin_url, actor, comment) as client:
        outcome = client.post("changes", document={**question, **tried.fields()})
        _require_revision(outcome, if_revision)
        if not (dry_run or preview):
            terms = Terms(max_moves=max_moves, confirm_within_s=confirm_within)
            seen = {"expect": _revisions(outcome)}
            outcome = client.post("changes", document={**question, **seen, **terms.fields()})
    if len(outcome.documents) > 1 and outcome.changed and not (as_json or dry_run or preview):
        print_documents(outcome.documents)
    report(outcome, _subject(outcome), as_json=as_json, previewed=preview)


def _kind(document: Mapping[str, Any]) -> str | None:
    """Tell what a document is meant to be by the field that only this kind has, as the admin API does."""
    kinds = (("backend", "version"), ("split", "route"), ("name", "cohort"))
    return next((kind for field, kind in kinds if field in document), None)


def _check_named(document: Mapping[str, Any]) -> None:
    model = document.get("model")
    if _kind(document) == "route" and (not isinstance(model, str) or not model):
        raise Misuse("model: required field is missing or no text", "Say which model the route is for.")


def _require_revision(tried: Outcome, expect: int | None) -> None:
    if expect is None:
        return
    for one in tried.documents:
        if one.get("was") != expect:
            found = f"is at revision {one['was']}" if one.get("was") else "does not exist"
            raise Refusal(
                f"--if-revision {expect}: {one['name']} {found}; nothing was changed",
                "Look at what changed, then run the command again with the present revision.",
                code="revision_conflict",
                revision=one.get("was"),
            )


def _revisions(tried: Outcome) -> dict[str, int]:
    """Return the revision that each document has; 0 for one that must not exist yet. Versions never change."""
    return {f"{one['kind']}/{one['name']}": one.get("was") or 0 for one in tried.documents if one["kind"] != "version"}


def _subject(outcome: Outcome) -> str:
    if len(outcome.documents) != 1:
        return f"{len(outcome.documents)} documents applied"
    one = outcome.documents[0]
    of = {"route": "route of ", "version": "version "}.get(one["kind"], f"{one['kind']} ")
    return f"{of}{one['name']} {'made' if one['outcome'] == 'made' else 'applied'}"
