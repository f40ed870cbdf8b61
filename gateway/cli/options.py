"""What the commands have in common on the command line: names, options, and who is asking.

Belongs here: the words and defaults of shared arguments and options. Never here: what a command does with them.
"""

import getpass
import os
import re
from typing import Annotated

import typer

from gateway.cli.client import AdminClient

DEFAULT_ADMIN_URL = "http://127.0.0.1:8081"
DEFAULT_URL = "http://127.0.0.1:8080"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def example(*lines: str) -> str:
    """Return the epilog of a command's help: its examples, one a line, as they would be typed."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def _name(longest: int, text: str) -> str:
    if len(text) > longest or _NAME.fullmatch(text) is None:
        raise typer.BadParameter(
            f"{text!r} is no name: 1 to {longest} letters, digits, dots, underscores and hyphens, "
            "beginning with a letter or digit"
        )
    return text


def model_name(text: str) -> str:
    """Return a legal name of a model or cohort. Raises `typer.BadParameter`."""
    return _name(128, text)


def version_name(text: str) -> str:
    """Return a legal name of a version. Raises `typer.BadParameter`."""
    return _name(64, text)


Model = Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL", parser=model_name)]
Version = Annotated[str, typer.Argument(help="The version's name.", metavar="VERSION", parser=version_name)]
CohortName = Annotated[str, typer.Argument(help="The cohort's name.", metavar="COHORT", parser=model_name)]
AdminUrl = Annotated[
    str | None,
    typer.Option("--admin-url", help="Address of the admin API.", metavar="URL", show_default=DEFAULT_ADMIN_URL),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the admin API's JSON, for programs, and nothing else.")]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        help="Who makes the change.",
        metavar="NAME",
        envvar="POINTSMAN_ACTOR",
        show_default="your login name",
    ),
]
Comment = Annotated[str, typer.Option("--comment", "-m", help="Why, in one line; kept in the history.", metavar="TEXT")]
IfRevision = Annotated[
    int | None,
    typer.Option(
        "--if-revision",
        help="Make the change only if this is still the revision, for example of the one you looked at.",
        metavar="N",
        min=1,
    ),
]


def connect(context: typer.Context, admin_url: str | None, actor: str | None = None, comment: str = "") -> AdminClient:
    """Return a client of the admin API: `--admin-url` of the command, else of `pointsman` itself, else the default."""
    outer = context.find_root().params.get("admin_url")
    return AdminClient(admin_url or outer or DEFAULT_ADMIN_URL, actor=actor or login_name(), comment=comment)


def login_name() -> str:
    """Return who runs this process; a container may have a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
