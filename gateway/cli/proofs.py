"""`pointsman audit verify, completeness, receipt, verify-receipt, key`: nothing is missing, and nothing was edited.

Belongs here: these commands. Never here: how something is proven.

`verify-receipt` asks nobody: it reads two files, and works where there is no gateway.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.evidence import Since, Until
from gateway.cli.failures import REFUSED, Misuse
from gateway.cli.job import follow
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, connect, example
from gateway.errors import EvidenceError
from gateway.evidence.keys import parse_public_keys
from gateway.evidence.receipts import MOST_BYTES, verify_receipt
from gateway.times import moment

_LARGEST_FILE = 64 * 2**20
RecordId = Annotated[str, typer.Argument(help="A record id (the X-Record-Id of an answer).", metavar="RECORD-ID")]
Out = Annotated[Path | None, typer.Option("--output", "-o", help="Write it to a file.", metavar="FILE")]
PublicKeyFile = Annotated[
    Path | None, typer.Option("--public-key", help="The public key (PEM) that you trust.", metavar="FILE")
]


def register(commands: typer.Typer) -> None:
    """Add the commands to `pointsman audit`."""
    commands.command(epilog=example("pointsman audit completeness", "pointsman audit completeness --from 30d"))(
        completeness
    )
    commands.command(
        epilog=example(
            "pointsman audit verify",
            "pointsman audit verify --checkpoints checkpoints.jsonl --public-key pointsman.pem",
        )
    )(verify)
    commands.command(epilog=example("pointsman audit receipt 01a21418-9df5-72b7-9c9d-051d2342b577 -o receipt.json"))(
        receipt
    )
    commands.command(
        name="verify-receipt", epilog=example("pointsman audit verify-receipt receipt.json --public-key pointsman.pem")
    )(verify_one_receipt)
    commands.command(epilog=example("pointsman audit key -o pointsman.pem"))(key)


def completeness(
    context: typer.Context,
    *,
    since: Since = None,
    until: Until = None,
    actor: Actor = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Count for each worker's journal what was served and what became of it; exit 1 when anything is missing."""
    given = {"from": since, "to": until}
    with connect(context, admin_url, actor) as client:
        reading = client.read(
            "audit", "completeness", params={name: value for name, value in given.items() if value is not None}
        )
    if as_json:
        typer.echo(reading.raw)
    else:
        _print_account(reading.document)
    if not reading.document["complete"]:
        raise typer.Exit(REFUSED)


_COUNTS = ("served", "recorded", "pending", "quarantined", "pruned", "missing")


def _print_account(account: Mapping[str, Any]) -> None:
    journals = account["journals"]
    show.grid(
        "",
        ("gateway", "worker", "journal", *_COUNTS),
        ([one[name] for name in ("gateway", "worker", "journal", *_COUNTS)] for one in journals),
        _COUNTS,
    )
    for gateway, lost in account["lost"].items():
        show.say(f"{gateway} served {lost} predictions without a record, because its disk was full")
    total = sum(one["served"] for one in journals)
    show.say(f"{total} records: {'complete' if account['complete'] else 'NOT complete'}")


def verify(
    context: typer.Context,
    *,
    since: Since = None,
    until: Until = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option("--checkpoints", help="Checkpoints that were kept elsewhere (JSON lines).", metavar="FILE"),
    ] = None,
    public_key: PublicKeyFile = None,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Walk every record, chain, checkpoint and journal again; name the first that was edited (exit 1)."""
    params = {name: value for name, value in {"from": since, "to": until}.items() if value is not None}
    brought = {
        name: _text(path, option)
        for name, path, option in (
            ("checkpoints", checkpoints, "--checkpoints"),
            ("public_keys", public_key, "--public-key"),
        )
        if path is not None
    }
    with connect(context, admin_url, actor, comment) as client:
        verdict = follow(client, "verify", params, "verifying", document=brought)
    if as_json:
        typer.echo(json.dumps(verdict))
    else:
        _print_verdict(verdict)
    if not verdict["holds"]:
        raise typer.Exit(REFUSED)


def _print_verdict(verdict: Mapping[str, Any]) -> None:
    show.say(
        f"{verdict['records']} records under {verdict['checkpoints']} checkpoints, "
        f"{verdict['uncovered']} more since the newest one, {verdict['frames']} frames of journals"
    )
    for count, what in ((verdict["erased"], "without their erased contents"), (verdict["stubs"], "pruned")):
        if count:
            show.say(f"  {count} {what}, as control records say")
    if verdict["holds"]:
        show.say("nothing was edited")
        return
    show.say(f"EDITED OR DAMAGED: {verdict['count']} findings; the first: {_place(verdict['findings'][0])}")
    show.grid(
        "findings",
        ("day", "journal", "record", "record id", "what"),
        (
            (one["day"], one["journal"] or one["gateway"], one["sequence"] or None, one["record_id"], one["what"])
            for one in verdict["findings"]
        ),
        ("record",),
    )
    if (more := verdict["count"] - len(verdict["findings"])) > 0:
        show.say(f"and {more} more")


def _place(finding: Mapping[str, Any]) -> str:
    if finding["sequence"]:
        named = f" ({finding['record_id']})" if finding["record_id"] else ""
        return f"record {finding['sequence']} of journal {finding['journal']}{named}: {finding['what']}"
    return str(finding["what"])


def receipt(
    context: typer.Context,
    *,
    record_id: RecordId,
    output: Out = None,
    actor: Actor = None,
    admin_url: AdminUrl = None,
) -> None:
    """Make the receipt of one record: a JSON document that proves it offline, without the gateway."""
    with connect(context, admin_url, actor) as client:
        reading = client.read("audit", "receipts", record_id)
    _write(reading.raw, output)


def verify_one_receipt(
    *,
    file: Annotated[Path, typer.Argument(help="A receipt, as `audit receipt` wrote it.", metavar="FILE")],
    public_key: Annotated[
        Path,
        typer.Option("--public-key", help="The gateway's public key (PEM), got from elsewhere.", metavar="FILE"),
    ],
    as_json: AsJson = False,
) -> None:
    """Check a receipt offline: does the key's gateway vouch for this very record? Exit 1 when it does not."""
    document = _bytes(file, "FILE", MOST_BYTES + 1)
    try:
        keys = parse_public_keys(_bytes(public_key, "--public-key", _LARGEST_FILE))
    except EvidenceError as error:
        raise Misuse(
            f"--public-key: {public_key}: {error.message}", "`pointsman audit key -o FILE` writes one."
        ) from None
    proven, why = None, ""
    for one in keys:
        try:
            proven = verify_receipt(document, one)
            break
        except EvidenceError as error:
            why = why or error.message
    if proven is None:
        if as_json:
            typer.echo(json.dumps({"proven": False, "why": why}))
        else:
            show.say(f"NOT proven: {why}")
        raise typer.Exit(REFUSED)
    record, statement = proven.record, proven.statement
    if as_json:
        typer.echo(json.dumps({"proven": True, "record_id": record.record_id, "gateway": statement.gateway}))
        return
    show.say(f"proven: record {record.record_id} stands unchanged since {statement.at}")
    show.facts(
        (
            ("model", record.model),
            ("version", record.served or record.tried_first),
            ("received", moment(record.received_ns)),
            ("status", record.status),
            ("reason", record.reason),
            ("place", f"record {proven.place.sequence} of journal {proven.place.journal}"),
            ("checkpoint", f"{statement.number} of gateway {statement.gateway}, {statement.size} records"),
            ("key", statement.key),
            ("request sha256", proven.request.sha256 if proven.request is not None else None),
            ("response sha256", proven.response.sha256 if proven.response is not None else None),
        )
    )


def key(context: typer.Context, *, output: Out = None, as_json: AsJson = False, admin_url: AdminUrl = None) -> None:
    """Print the public key (PEM) that this gateway's checkpoints and receipts are checked with."""
    with connect(context, admin_url) as client:
        reading = client.read("audit", "key")
    _write(reading.raw if as_json else str(reading.document["pem"]).rstrip("\n"), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise Misuse(f"--output: {output} cannot be written: {error.strerror}", "Name another file.") from None
    show.say(f"written to {output}")


def _text(path: Path, option: str) -> str:
    try:
        return _bytes(path, option, _LARGEST_FILE).decode()
    except UnicodeDecodeError:
        raise Misuse(f"{option}: {path} is no text", "Name a file that Pointsman wrote.") from None


def _bytes(path: Path, option: str, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise Misuse(f"{option}: {path} cannot be read: {error.strerror}", "Name a file that can be read.") from None
