"""On which terms a change is asked for: only tried, previewed, limited in what it moves, or taken back by itself.

Belongs here: the options that say so, and how they are sent. Never here: what they come to; that is the admin API's.
"""

from typing import Annotated, Any

import typer
from msgspec import Struct

from gateway.cli.spans import parse_span

_LONGEST_SECONDS = 7 * 24 * 3600


class Terms(Struct, frozen=True):
    """The terms of one change, as the admin API has them."""

    dry_run: bool = False
    preview: bool = False
    max_moves: int | None = None
    confirm_within_s: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return them as the fields of a body, those left out that say nothing."""
        every = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in every.items() if value is not None and value is not False}

    def query(self) -> dict[str, str]:
        """Return them as the parameters of a query, those left out that say nothing."""
        return {name: "true" if value is True else str(value) for name, value in self.fields().items()}


UNCONDITIONAL = Terms()
"""A change that is simply made."""


def confirm_seconds(text: str) -> int:
    """Return in how many seconds a change must be confirmed. Raises `typer.BadParameter`."""
    span = parse_span(text)
    seconds = int(span.total_seconds()) if span is not None else 0
    if not 1 <= seconds <= _LONGEST_SECONDS:
        raise typer.BadParameter(f"{text!r}: expected a span from 1s to 7d, such as 15m")
    return seconds


DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
Preview = Annotated[bool, typer.Option("--preview", help="Say which callers would move, and change nothing.")]
MaxMoves = Annotated[
    int | None,
    typer.Option(
        "--max-moves",
        help="Refuse when more callers than this would move, going by the requests of the last hour.",
        metavar="N",
        min=0,
    ),
]
ConfirmWithin = Annotated[
    int | None,
    typer.Option(
        "--confirm-within",
        help="Take the change back by itself unless `routes confirm` comes in this time: 90s, 15m, 2h, 1d.",
        metavar="SPAN",
        parser=confirm_seconds,
    ),
]
