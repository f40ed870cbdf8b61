"""`pointsman`: the commands, and how each of them ends.

Belongs here: which commands there are, the options of `pointsman` itself, and the exit codes: 0 done; 1 refused, not
found, or not in force everywhere; 2 a command line that makes no sense, or no gateway. Never here: what a command does.
"""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli import (
    audit,
    changes,
    cohorts,
    demo,
    explain,
    history,
    pins,
    preview,
    routes,
    rules,
    serve,
    status,
    undo,
    versions,
)
from gateway.cli.failures import REFUSED, UNUSABLE, CommandFailed
from gateway.cli.options import DEFAULT_ADMIN_URL, example
from gateway.cli.show import complain
from gateway.errors import GatewayError, SettingsError


class _Commands(TyperGroup):
    """Turns an error into a message on standard error and an exit code, in one place for every command."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except CommandFailed as failure:
            complain(failure.message, failure.advice)
            raise typer.Exit(failure.exit_code) from None
        except GatewayError as error:
            complain(error.message)
            raise typer.Exit(UNUSABLE if isinstance(error, SettingsError) else REFUSED) from None


# Plain help and plain errors: rich's boxes break long messages apart where a program or a log would look for them.
app = typer.Typer(
    cls=_Commands,
    name="pointsman",
    help="An inference gateway with version routing.",
    epilog=example("pointsman serve", "pointsman routes weights digits 1=90 2=10 -m 'first ten percent'"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pointsman {version('pointsman')}")
        raise typer.Exit


@app.callback()
def _pointsman(
    admin_url: Annotated[
        str | None,
        typer.Option(
            "--admin-url",
            envvar="POINTSMAN_ADMIN_URL",
            help="Address of the admin API, for every command but serve.",
            metavar="URL",
            show_default=DEFAULT_ADMIN_URL,
        ),
    ] = None,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """An inference gateway with version routing."""


for _room in (serve, demo, status):
    _room.register(app)
for _name, _group in (
    ("versions", versions.commands),
    ("routes", routes.commands),
    ("cohorts", cohorts.commands),
    ("rules", rules.commands),
    ("audit", audit.commands),
):
    app.add_typer(_group, name=_name)
for _part in (changes, pins, preview, undo, history, explain):
    _part.register(routes.commands)


def main() -> None:
    """Run the command line of this process; the console script `pointsman` and `python -m gateway` call it."""
    app(prog_name="pointsman")
