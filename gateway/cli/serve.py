"""`pointsman serve`: settings from the command line, the supervisor, and the example models on request.

Belongs here: options and what a person sees on the terminal. Never here: starting processes (that is `supervisor`).
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway import logs
from gateway.cli.examples import show_examples
from gateway.config import CONFIG_VARIABLE, load_settings
from gateway.errors import SettingsError
from gateway.supervisor import Supervisor

_EXAMPLE = """\
Example:  pointsman serve --workers 4 --data-dir /var/lib/pointsman

With no options: data port 127.0.0.1:8080, admin port 127.0.0.1:8081, rules in an embedded Valkey, records in SQLite,
everything in ./pointsman-data. Every setting can also stand in a TOML file (--config) or in the environment.
"""


def register(app: typer.Typer) -> None:
    """Add `serve` to the command line."""
    app.command(epilog=_EXAMPLE)(serve)


def serve(
    *,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of journals, records, rules and sockets.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the data port.")] = None,
    port: Annotated[int | None, typer.Option(help="Data port; 0 takes a free one.")] = None,
    admin_host: Annotated[str | None, typer.Option(help="Address of the admin port.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Admin port; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Data workers.")] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Rules store; better in POINTSMAN_REDIS_URL when it holds a password.")
    ] = None,
    audit_url: Annotated[
        str | None,
        typer.Option(help="Audit store, such as postgresql://…; better in POINTSMAN_AUDIT__URL with a password."),
    ] = None,
    gateway: Annotated[str | None, typer.Option(help="Name of this gateway in records.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow addresses other than loopback without authentication.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Let py-spy and perf attach to the processes, and log how.")
    ] = False,
    examples: Annotated[
        bool, typer.Option("--examples", help="Register and route the example models, and print curl lines.")
    ] = False,
) -> None:
    """Run the gateway: data workers, control process and, without a Redis URL, an embedded Valkey."""
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    overrides = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "admin_host": admin_host,
        "admin_port": admin_port,
        "workers": workers,
        "redis_url": redis_url,
        "audit": {"url": audit_url} if audit_url is not None else None,
        "gateway": gateway,
        "log_level": log_level,
        "insecure": insecure or None,
        "profile": profile or None,
    }
    try:
        settings = load_settings(overrides)
        settings = settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})
        logs.configure(settings.log_level, gateway=settings.gateway, worker="supervisor")
        code = asyncio.run(Supervisor(settings, show_examples if examples else None).run())
    except SettingsError as error:
        typer.echo(f"pointsman: {error.message}", err=True)
        raise typer.Exit(2) from None
    sys.exit(code)
