"""`pointsman audit`: what happened to a request, for the person who has to answer for it.

Belongs here: the command. Never here: how a record looks (`card`), or a judgement about it.
"""

from typing import Annotated

import typer

from gateway.cli import evidence, export, listing, privacy, proofs, show
from gateway.cli.card import print_card
from gateway.cli.options import AdminUrl, AsJson, connect, example

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Audit: the record of every prediction.")


@commands.command(
    name="show", epilog=example("pointsman audit show hello-1", "pointsman audit show hello-1 --json | jq .records[0]")
)
def show_request(
    context: typer.Context,
    *,
    any_id: Annotated[
        str, typer.Argument(help="A request id, a record id, or the id in an inference body.", metavar="ID")
    ],
    full: Annotated[bool, typer.Option("--full", help="Show whole bodies, however long.")] = False,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Show every record of a request: which version answered, why that one, and what it was made from."""
    with connect(context, admin_url) as client:
        reading = client.read("audit", "requests", any_id)
    if as_json:
        typer.echo(reading.raw)
        return
    for index, record in enumerate(reading.document["records"]):
        if index:
            typer.echo("\n" + "═" * 78 + "\n")
        print_card(record, full=full)
    for note in reading.document.get("notes", []):
        show.say(f"note: {note}")


listing.register(commands)
evidence.register(commands)
export.register(commands)
privacy.register(commands)
proofs.register(commands)
