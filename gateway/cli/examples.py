"""The example models for `pointsman serve --examples`: register, route, and show what to type.

Belongs here: the first five minutes of a newcomer. Never here: the models themselves (`gateway.examples`).
"""

import shutil
import sys
from pathlib import Path

import typer

from gateway.cli.client import AdminClient
from gateway.cli.demo import MODEL, infer_body
from gateway.cli.documents import read_manifest
from gateway.cli.failures import CommandFailed
from gateway.cli.options import DEFAULT_ADMIN_URL, DEFAULT_URL
from gateway.cli.show import complain
from gateway.cli.weights import percent
from gateway.examples import digit_samples, digits_folder

_ROUTE = {"model": MODEL, "split": {"1": 9000, "2": 1000}, "shadows": [{"version": "3", "sample": 10_000}]}
_REQUEST_ID = "hello-1"


def show_examples(data_url: str, admin_url: str) -> None:
    """Install and print the examples; a failure is told on standard error, and the gateway serves on."""
    try:
        install_examples(admin_url)
        print_examples(data_url, admin_url)
    except CommandFailed as failure:
        complain(f"the example models are not installed: {failure.message}", failure.advice)


def install_examples(admin_url: str) -> None:
    """Register the three versions of `digits` and, only if there is no route for it yet, route 90/10 with a shadow.

    Raises:
        CommandFailed: the admin API cannot be reached or refuses.
    """
    with AdminClient(admin_url, actor="pointsman serve --examples", comment="example models") as client:
        for manifest in sorted(digits_folder().glob("*/manifest.json")):
            client.register(MODEL, read_manifest(manifest))
        if client.find("routes", MODEL) is None:
            client.put("routes", MODEL, document=_ROUTE, expect=None)


def print_examples(data_url: str, admin_url: str) -> None:
    """Print lines to copy: ask the gateway which digit a picture shows, then ask what it recorded.

    They go to standard error, so that standard output stays one JSON log line after another.

    Raises:
        CommandFailed: the admin API cannot be reached or has no route for the examples.
    """
    with AdminClient(admin_url, actor="pointsman serve --examples") as client:
        split = client.read("routes", MODEL).document["split"]
    shares = ", ".join(f"version {version} {percent(points)} %" for version, points in split.items())
    typer.echo(_banner(data_url, admin_url, shares), err=True)


def _banner(data_url: str, admin_url: str, shares: str) -> str:
    sample = digit_samples()[0]
    cli = _command() if admin_url == DEFAULT_ADMIN_URL else f"{_command()} --admin-url {admin_url}"
    headers = f"-H 'x-request-id: {_REQUEST_ID}' -H 'x-routing-key: me'"
    demo = f"{cli} demo" if data_url == DEFAULT_URL else f"{cli} demo --url {data_url}"
    return f"""
Pointsman serves the example model {MODEL}: {shares}.

Ask which digit this is (a {sample.label}); the headers say which version answered, and why:

  curl -si {data_url}/v2/models/{MODEL}/infer {headers} -d '{infer_body(sample)}'

Look the request up, as JSON or as a card:

  curl -s {admin_url}/admin/v1/audit/requests/{_REQUEST_ID}
  {cli} audit show {_REQUEST_ID}

Send a few hundred digits and see what the versions make of them; then move the weights:

  {demo}
  {cli} routes weights {MODEL} 1=50 2=50 -m 'half and half'

Ctrl-C stops everything.
"""


def _command() -> str:
    """Return what to type for this command line: its name if the shell finds it, else where it lies."""
    beside = Path(sys.executable).parent / "pointsman"
    if shutil.which("pointsman") or not beside.exists():
        return "pointsman"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
