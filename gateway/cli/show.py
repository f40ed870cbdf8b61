"""What people see: tables, sentences and complaints on a terminal, and the same without colours or cuts in a pipe.

Belongs here: how text reaches the screen safely. Never here: the layout of one kind of document (that stands beside
its commands), or how the outcome of a change is told (`outcomes`).
"""

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 10_000
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def plain(value: object) -> str:
    """Return a value as text that cannot command a terminal: records hold what strangers sent."""
    return "".join(
        c if unicodedata.category(c) not in _UNSAFE else c.encode("unicode_escape").decode() for c in str(value)
    )


def console() -> Console:
    """Return standard output: as wide as the terminal, or in a pipe so wide that nothing is cut or folded."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if narrow else _PIPE_WIDTH, highlight=False, markup=False, soft_wrap=not narrow)


def say(line: str) -> None:
    """Print one line, which wraps but is never cut."""
    typer.echo(plain(line))


def heading(title: str) -> None:
    """Print a line that stands above a part, with an empty one before it."""
    typer.echo()
    say(title)


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table under its title, if it has one; `right` are columns of numbers. An empty table is left out."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if value in (None, "") else plain(value)) for value in row))
    if table.row_count:
        if title:
            heading(title)
        console().print(table)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns; a value of None or "" is left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            table.add_row(Text(name), Text(plain(value)))
    if table.row_count:
        console().print(table)


def complain(message: str, advice: str = "") -> None:
    """Say on standard error what is wrong and, on a line of its own, what to do."""
    typer.echo(f"pointsman: {plain(message)}", err=True)
    if advice:
        typer.echo(f"  {plain(advice)}", err=True)
