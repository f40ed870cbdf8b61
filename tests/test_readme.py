"""Every setting, metric, error code, command and path in the README is the code's, and none is missing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from starlette.routing import Route

from gateway import errors
from gateway.admin.app import build_admin
from gateway.admin.problems import STATUSES as ADMIN_STATUS
from gateway.cli.app import app as command_line
from gateway.config import load_settings, setting_names
from gateway.metrics import METRICS
from gateway.protocols.oip_v2 import ROUTES, STATUS
from routing import parse_cohort, parse_route

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _rows(section: str) -> list[list[str]]:
    """Return the cells of a table that stands between `<!-- section -->` and `<!-- /section -->`."""
    found = re.search(rf"<!-- {section} -->\n(.*?)<!-- /{section} -->", README, re.DOTALL)
    assert found, f"the README has no section {section}"
    lines = [line for line in found[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def _first_cells(section: str) -> list[str]:
    return [row[0].strip("`") for row in _rows(section)]


def _subclasses(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def test_the_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    described = setting_names()
    defaults = load_settings().model_dump()
    assert _first_cells("settings") == list(described)
    for name, default, meaning in _rows("settings"):
        key = name.strip("`")
        assert meaning == described[key]
        value: Any = defaults
        for part in key.split("."):
            value = value[part]
        expected = "the host's name" if key == "gateway" else "–" if value is None else f"`{value}`"
        assert default == expected, key


def test_the_readme_lists_every_metric_with_its_labels_and_meaning() -> None:
    rows = {row[0].strip("`"): row[1:] for row in _rows("metrics")}
    assert list(rows) == list(METRICS)
    for name, (kind, labels, meaning) in rows.items():
        metric = METRICS[name]
        assert kind == metric.kind
        assert re.findall(r"[a-z]+", labels) == list(metric.labels)
        assert meaning == metric.help


def test_the_readme_lists_every_error_code_with_its_statuses() -> None:
    codes = {kind.code: (kind.__doc__ or "").splitlines()[0] for kind in _subclasses(errors.GatewayError)}
    rows = {row[0].strip("`"): row[1:] for row in _rows("error codes")}
    documented = {code for code in codes if code in STATUS or code in ADMIN_STATUS}
    assert set(rows) == documented
    for code, (data, admin, _) in rows.items():
        passed_on = code == errors.BackendStatus.code
        assert data == ("the backend's" if passed_on else str(STATUS[code]) if code in STATUS else "–"), code
        assert admin == (str(ADMIN_STATUS[code]) if code in ADMIN_STATUS else "–"), code


def test_the_readme_lists_every_command() -> None:
    group: Any = typer.main.get_command(command_line)
    names = []
    for name, command in group.commands.items():
        below = getattr(command, "commands", None)
        if not getattr(command, "hidden", False):
            names += [f"pointsman {name} {inner}" for inner in below] if below else [f"pointsman {name}"]
    assert sorted(_first_cells("commands")) == sorted(names)


def test_every_command_has_an_example_in_its_help() -> None:
    group: Any = typer.main.get_command(command_line)
    for command in group.commands.values():
        for inner in getattr(command, "commands", {"": command}).values():
            assert "pointsman" in (inner.epilog or "") + (inner.help or ""), inner.name


def test_the_readme_lists_every_path_of_the_admin_port() -> None:
    nothing: Any = None
    paths = [
        f"{method} {route.path.replace(':path', '')}"
        for route in build_admin(nothing, nothing, nothing, nothing).routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"}, key="GET PUT POST DELETE".index)
    ]
    assert sorted(_first_cells("admin routes")) == sorted(paths)


def test_the_readme_lists_every_path_of_the_data_port() -> None:
    paths = set()
    for cell in _first_cells("data routes"):
        for text in cell.replace("`", "").split(", "):
            paths |= {re.sub(r"\[.*?\]", "", text), text.replace("[", "").replace("]", "")}
    assert paths == {f"{row.method} {row.path}" for row in ROUTES}


def test_the_route_document_of_the_readme_is_legal_and_shows_the_defaults() -> None:
    (shown,) = re.findall(r"```json\n(\{\n  \"model\": \"fraud\",\n  \"salt\".*?)```", README, re.DOTALL)
    route = parse_route(shown.encode())
    bare = parse_route({"model": "fraud", "split": {"1": 9000, "2": 1000}})
    names = ("salt", "key", "fallback", "client_versions", "timeout_ms", "idempotent", "retries", "capture", "brake")
    for name in (*names, "slowdown"):
        assert getattr(route, name) == getattr(bare, name), name


def test_the_cohort_of_the_readme_is_legal() -> None:
    (text,) = re.findall(r"`(\{\"name\": \"beta\".*?\})`\.", README)
    assert parse_cohort(text.encode()).keys == ("u-17",)
