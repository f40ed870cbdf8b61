"""`pointsman audit list`: many records, newest first, by what they have in common.

Belongs here: the command and the look of its table. Never here: which records fit (the store knows).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.client import AdminClient
from gateway.cli.options import AdminUrl, AsJson, connect, example

_PAGE = 200
_COLUMNS = ("received", "record", "model", "version", "status", "reason", "role", "ms", "caller")


def register(commands: typer.Typer) -> None:
    """Add the command to `pointsman audit`."""
    commands.command(
        name="list",
        epilog=example(
            "pointsman audit list --model digits --from 24h --status 502",
            "pointsman audit list --role control --action audit.erase --json | jq .records[]",
        ),
    )(list_records)


def list_records(
    context: typer.Context,
    *,
    model: Annotated[str | None, typer.Option("--model", help="Of this model.", metavar="MODEL")] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Served by this version (or meant for it).", metavar="VERSION")
    ] = None,
    status: Annotated[int | None, typer.Option("--status", help="With this HTTP status.", min=100, max=599)] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="served, failed or refused.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="explicit, pin, split, brake or shadow.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="primary, shadow or control.")] = None,
    caller: Annotated[str | None, typer.Option("--caller", help="From this client address.")] = None,
    gateway: Annotated[str | None, typer.Option("--gateway", help="Of this gateway.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Control records of this kind, such as audit.erase.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Received since: 24h, 30d, or 2026-10-01T00:00:00Z.", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Received before.", metavar="TIME")] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many at most.", metavar="N", min=1)] = 50,
    after: Annotated[
        str | None, typer.Option("--after", help="Go on where an earlier list ended.", metavar="CURSOR")
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """List records, newest first."""
    given = {
        "model": model,
        "version": version,
        "status": status,
        "outcome": outcome,
        "reason": reason,
        "role": role,
        "caller": caller,
        "gateway": gateway,
        "action": action,
        "from": since,
        "to": until,
    }
    wanted = {name: str(value) for name, value in given.items() if value is not None}
    with connect(context, admin_url) as client:
        records, following = _collect(client, wanted, after, limit)
    if as_json:
        typer.echo(json.dumps({"records": records, "next": following}, ensure_ascii=False))
        return
    show.grid("", _COLUMNS, (_row(record) for record in records), ("status", "ms"))
    if not records:
        show.say("no record is like that")
    if following is not None:
        show.say(f"more: the same command with --after {following}")


def _collect(
    client: AdminClient, wanted: Mapping[str, str], after: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` records and where to go on. A page may be short, even empty, and still not be the last."""
    records: list[dict[str, Any]] = []
    while len(records) < limit:
        size = {"limit": str(min(_PAGE, limit - len(records)))}
        place = {"after": after} if after is not None else {}
        page = client.read("audit", "records", params={**wanted, **size, **place}).document
        records += page["records"]
        after = page["next"]
        if after is None:
            break
    return records, after


def _row(record: Mapping[str, Any]) -> tuple[object, ...]:
    if record["role"] == "control":
        what, who = record["action"], record["actor"]
        return record["received"], record["record_id"], record["model"], None, None, what, "control", None, who
    return (
        record["received"],
        record["record_id"],
        record["model"],
        record["served"] or record["intended"],
        record["status"],
        record["reason"] or record["error_code"],
        record["role"],
        f"{record['total_us'] / 1000:.3f}",
        record["client"],
    )
