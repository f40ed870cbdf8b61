"""`pointsman versions`: register versions from their manifests, list and show them.

Belongs here: these commands and how a version looks. Never here: whether a manifest is legal or complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import show
from gateway.cli.documents import read_manifest
from gateway.cli.failures import Misuse
from gateway.cli.options import Actor, AdminUrl, AsJson, Comment, Model, Version, connect, example, model_name
from gateway.cli.outcomes import report
from gateway.cli.weights import percent, split_words

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Versions: immutable artifacts of a model.")


@commands.command(
    epilog=example(
        "pointsman versions register models/fraud/2",
        "pointsman versions register fraud-1.yaml fraud-2.yaml -m 'October training'",
    )
)
def register(
    context: typer.Context,
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(help="Manifests (.json, .yaml, .yml), or folders with one in each.", metavar="PATH"),
    ],
    allow_incomplete: Annotated[
        bool,
        typer.Option("--allow-incomplete", help="Take a manifest without its metadata contract; listings will say so."),
    ] = False,
    actor: Actor = None,
    comment: Comment = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """Register versions. The artifact's path is relative to the manifest and must exist on the gateway's machine.

    Every manifest is read before the first is registered; the first refusal ends the command.
    """
    manifests = [(path, _checked(path, read_manifest(path))) for path in paths]
    with connect(context, admin_url, actor, comment) as client:
        for _, manifest in manifests:
            outcome = client.register(manifest["model"], manifest, allow_incomplete=allow_incomplete)
            report(outcome, f"version {manifest['version']} of {manifest['model']} registered", as_json=as_json)


@commands.command(
    name="list",
    epilog=example(
        "pointsman versions list", "pointsman versions list digits", "pointsman versions list digits --json"
    ),
)
def list_versions(
    context: typer.Context,
    *,
    model: Annotated[
        str | None,
        typer.Argument(help="The model's name; without it, every model.", metavar="MODEL", parser=model_name),
    ] = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = None,
) -> None:
    """List the versions of a model, what the route does with each, and figures; or every model.

    Figures count since the control process began.
    """
    with connect(context, admin_url) as client:
        reading = client.read("models", model) if model else client.read("models")
    if as_json:
        typer.echo(reading.raw)
    elif model:
        _print_versions(reading.document)
    else:
        _print_models(reading.document["models"])


@commands.command(name="show", epilog=example("pointsman versions show digits 2"))
def show_version(
    context: typer.Context, *, model: Model, version: Version, as_json: AsJson = False, admin_url: AdminUrl = None
) -> None:
    """Show where a version comes from: artifact, code, data, metrics, owner."""
    with connect(context, admin_url) as client:
        reading = client.read("models", model, "versions", version)
    if as_json:
        typer.echo(reading.raw)
    else:
        show.facts([*manifest_facts(reading.document), ("revision", reading.revision)])


def manifest_facts(version: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return what an auditor asks of a version, as names and values."""
    code, data = version.get("code", {}), version.get("data", {})
    onnx, http = version["backend"].get("onnx"), version["backend"].get("http")
    return [
        ("model", version["model"]),
        ("version", version["version"]),
        ("description", version.get("description")),
        ("runs", "in process (onnx)" if onnx else "elsewhere (http)"),
        ("artifact", onnx["path"] if onnx else None),
        ("artifact sha256", onnx["sha256"] if onnx else None),
        ("backends", ", ".join(http["urls"]) if http else None),
        ("code", " ".join(str(code[part]) for part in ("git_commit", "repository", "path") if code.get(part))),
        ("data", data.get("version")),
        ("data sha256", data.get("sha256")),
        ("hyperparameters", _pairs(version.get("hyperparameters", {}))),
        ("metrics", _pairs(version.get("metrics", {}))),
        ("owner", version.get("owner")),
        ("created", version.get("created")),
        ("tags", _pairs(version.get("tags", {}))),
        ("incomplete: lacks", ", ".join(version.get("incomplete", []))),
    ]


def _checked(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Refuse what has no place in a URL; everything else about the manifest is the admin API's to judge."""
    for field in ("model", "version"):
        if not isinstance(manifest.get(field), str) or not manifest[field]:
            raise Misuse(f"{path}: {field}: required field is missing or no text", "Name it in quotes.")
    return manifest


def _print_models(models: Sequence[Mapping[str, Any]]) -> None:
    rows = (
        (
            entry["model"],
            ", ".join(version["version"] for version in entry["versions"]),
            split_words(entry["route"]["split"]) if entry["route"] else None,
            entry["route"]["revision"] if entry["route"] else None,
        )
        for entry in models
    )
    show.grid("", ("model", "versions", "split", "revision"), rows, ("revision",))
    if not models:
        show.say("no models yet; register a version with: pointsman versions register PATH")


def _print_versions(model: Mapping[str, Any]) -> None:
    columns = ("version", "in the route", "requests", "p50 ms", "p99 ms", "runs", "metrics", "owner", "metadata")
    rows = (_row(version, model["route"] or {}) for version in model["versions"])
    show.grid(f"versions of {model['model']}", columns, rows, columns[2:5])
    if not model["versions"]:
        show.say("no versions yet; register one with: pointsman versions register PATH")


def _row(version: Mapping[str, Any], route: Mapping[str, Any]) -> tuple[object, ...]:
    missing, figures = version.get("incomplete", []), version.get("figures", {})
    latency = figures.get("latency_ms", {})
    return (
        version["version"],
        ", ".join(_roles(version["version"], route)),
        sum(figures.get("requests", {}).values()),
        latency.get("p50"),
        latency.get("p99"),
        next((kind for kind in ("onnx", "http") if version["backend"].get(kind)), None),
        _first(version.get("metrics", {})),
        version.get("owner"),
        f"incomplete: {', '.join(missing)}" if missing else "complete",
    )


def _roles(version: str, route: Mapping[str, Any]) -> Iterator[str]:
    if version in route.get("split", {}):
        yield f"{percent(route['split'][version])} %"
    yield from (f"pin {pin['cohort']}" for pin in route.get("pins", []) if pin["version"] == version)
    shadows = (shadow for shadow in route.get("shadows", []) if shadow["version"] == version)
    yield from (f"shadow {percent(shadow['sample'])} %" for shadow in shadows)
    if version in route.get("fallback", []):
        yield "fallback"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in sorted(values.items())
    )


def _first(values: Mapping[str, Any]) -> str:
    """Return the first of some values and how many more there are; a list has no room for all of them."""
    more = f" (+{len(values) - 1})" if len(values) > 1 else ""
    return _pairs(dict(sorted(values.items())[:1])) + more
