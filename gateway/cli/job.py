"""Work that the gateway does for minutes: a bar on the terminal meanwhile, and what came of it.

Belongs here: following a stream of lines. Never here: what a result means, or how it looks.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.cli.answers import refusal_of
from gateway.cli.client import AdminClient
from gateway.cli.failures import Refusal, Unreachable


class Bar(Struct, frozen=True):
    """A bar that is being shown, or not, where nobody looks."""

    progress: Progress
    task: TaskID

    def tell(self, done: int, total: int) -> None:
        """Show how many of how many are done."""
        self.progress.update(self.task, completed=done, total=total)


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """Show a bar on standard error if that is a terminal; it is gone in the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(title, total=None))


def follow(
    client: AdminClient,
    call: str,
    params: Mapping[str, str],
    title: str,
    document: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Have a job of `/admin/v1/audit/` done and return its result.

    Raises:
        Refusal: it could not be done.
        Unreachable: no gateway, or the answer ended before the result.
    """
    with client.stream("POST", "audit", call, params=params, document=document) as lines, bar(title) as shown:
        for line in lines:
            told = json.loads(line)
            if "progress" in told:
                shown.tell(told["progress"]["done"], told["progress"]["total"])
            elif "error" in told:
                raise refused(told["error"], call)
            elif "result" in told:
                result: dict[str, Any] = told["result"]
                return result
    raise Unreachable(f"the answer of {client.url} ended before its result", "Run the command again.")


def refused(error: Mapping[str, Any], call: str) -> Refusal:
    """Return the error at the end of a stream as the same that it is where it comes first."""
    return refusal_of({"code": error["code"], "detail": error["message"]}, 200, f"audit/{call}")
