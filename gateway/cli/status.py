"""`pointsman status`: the rules store, every worker of every gateway, what it has, and whether anything is wrong.

Belongs here: the command and how a status looks. Never here: what of it is wrong; the admin API says that.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import typer

from gateway.cli import show
from gateway.cli.failures import REFUSED
from gateway.cli.history import what_waits
from gateway.cli.options import AdminUrl, AsJson, connect, example
from gateway.cli.spans import span_words


def register(app: typer.Typer) -> None:
    """Add `status` to the command line."""
    app.command(epilog=example("pointsman status", "pointsman status --json | jq .workers"))(status)


def status(context: typer.Context, *, as_json: AsJson = False, admin_url: AdminUrl = None) -> None:
    """Show the rules store, all gateways and workers, their revisions, versions in trouble, and what waits to be
    confirmed.

    Ends with 1 when something is wrong: a store that is silent or in doubt, a worker that is silent, not ready,
    behind, alarmed, or without a version that it should have, or a version that workers divert from by its brake
    while the rules do not say so yet.
    """
    with connect(context, admin_url) as client:
        reading = client.read("status")
    if as_json:
        typer.echo(reading.raw)
    else:
        show.say(_verdict(reading.document))
        _print_status(reading.document)
    for trouble in reading.document["troubles"]:
        show.complain(trouble)
    if not reading.document["ok"]:
        raise typer.Exit(REFUSED)


def _verdict(document: Mapping[str, Any]) -> str:
    if not document["ok"]:
        return "something is wrong; see below"
    return "all is well" if not document["impaired"] else "all is well, but for versions in trouble; see below"


def _print_status(document: Mapping[str, Any]) -> None:
    store, head = document["store"], document["store"]["head"]
    newest = head if head is not None else store["known"]
    show.facts(
        [
            ("gateway asked", document["gateway"]),
            ("rules store", _state_of_store(store)),
            (
                "newest revision",
                f"{newest['revision']} (epoch {newest['epoch']})" if newest is not None else "none yet",
            ),
        ]
    )
    columns = ("worker", "state", "revision", "in force since", "rules checked", "not in force")
    show.grid("workers", columns, (_row(worker) for worker in document["workers"]), ("revision",))
    show.grid(
        "versions in trouble, by worker of the gateway asked",
        ("model", "version", "braked", "backends left out", "backends unhealthy", "requests at once"),
        (_impaired_row(version) for version in document["impaired"]),
    )
    waiting = (
        (one["revision"], what_waits(one["documents"]), f"in {span_words(one['remaining_ms'] / 1000)}")
        for one in document["unconfirmed"]
    )
    show.grid(
        "unconfirmed changes; let one stand with: pointsman routes confirm MODEL",
        ("revision", "documents", "taken back"),
        waiting,
        ("revision",),
    )


def _state_of_store(store: Mapping[str, Any]) -> str:
    if store["in_doubt"]:
        return "in doubt: it lost rules that were in force"
    return "answering" if store["answering"] else "silent"


def _row(worker: Mapping[str, Any]) -> tuple[object, ...]:
    state = "silent" if not worker["alive"] else "ready" if worker["ready"] else "not ready"
    if worker["alarms"]:
        state += ", alarm"
    since = datetime.fromtimestamp(worker["since_ns"] / 1e9, UTC) if worker["since_ns"] else None
    age = worker["rules_age_ms"]
    return (
        worker["worker"],
        state,
        worker["revision"],
        f"{since:%Y-%m-%dT%H:%M:%SZ}" if since else None,
        f"{span_words(age / 1000)} ago" if age is not None else None,
        ", ".join(sorted(worker["problems"])),
    )


def _impaired_row(version: Mapping[str, Any]) -> tuple[object, ...]:
    braked = {worker: f"{one['failures']} of {one['of']} failed" for worker, one in version["braked"].items()}
    limited = {worker: f"at most {most}" for worker, most in version["limited"].items()}
    by_worker = (braked, version["ejected"], version["unhealthy"], limited)
    return (version["model"], version["version"], *map(_by_worker, by_worker))


def _by_worker(told: Mapping[str, object]) -> str:
    return ", ".join(f"{worker.rpartition('/')[2]}: {what}" for worker, what in sorted(told.items()))
