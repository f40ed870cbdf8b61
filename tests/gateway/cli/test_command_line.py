import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gateway.cli.app import app

Peer = Any


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    if not inner and not command.hidden:
        yield " ".join(path), command
    for name, child in inner.items():
        yield from _leaves(child, (*path, name))


OFFLINE = {"serve", "audit verify-receipt"}
"""Commands that ask no gateway."""
COMMANDS = dict(_leaves(get_command(app)))
EXAMPLES = [
    line.strip()
    for name, command in COMMANDS.items()
    for line in (command.epilog or "").splitlines()
    if line.strip().startswith("pointsman ") and name not in OFFLINE and "|" not in line
]


def run(*arguments: str, text: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=text)


def test_every_command_of_the_issue_is_there() -> None:
    expected = {"serve", "demo", "versions register", "versions list", "versions show", "audit show"}
    expected |= {f"cohorts {verb}" for verb in ("set", "show", "list", "delete")}
    expected |= {f"routes {verb}" for verb in ("show", "apply", "weights", "explain")}
    expected |= {f"routes {verb}" for verb in ("pin", "unpin", "shadow", "unshadow")}
    expected |= {f"routes {verb}" for verb in ("history", "diff", "preview", "rollback", "promote", "confirm")}
    expected |= {"status", "rules republish", "rules accept"}
    assert expected <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_of_itself(name: str) -> None:
    shown = run(*name.split(), "--help")
    assert shown.exit_code == 0
    assert re.search(rf"Example:\s+pointsman {name}", shown.output)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_the_help_gets_as_far_as_the_gateway(
    line: str, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("fraud-1.yaml", "fraud-2.yaml", "digits.yaml", "beta.yaml"):
        Path(file).write_text("model: digits\nversion: '1'\nname: beta\n", encoding="utf-8")
    for file in ("staff.txt", "callers.txt", "checkpoints.jsonl", "pointsman.pem"):
        Path(file).write_text("u-1\n", encoding="utf-8")
    Path("rules").mkdir()
    Path("rules/beta.yaml").write_text("name: beta\nkeys: [u-1]\n", encoding="utf-8")
    Path("models/fraud/2").mkdir(parents=True)
    Path("models/fraud/2/manifest.json").write_text('{"model": "fraud", "version": "2"}', encoding="utf-8")
    result = run("--admin-url", nobody, *shlex.split(line)[1:])
    assert f"cannot reach the admin API at {nobody}" in result.stderr
    assert result.exit_code == (1 if " demo" in line else 2)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("routes weights digits 1=90 2=9", "sum to 99 %"),
        ("routes weights digits", "Missing argument"),
        ("routes weights ../etc 1=100", "is no name"),
        ("routes show ''", "is no name"),
        ("routes shadow digits 3=101", "101 is more than 100 %"),
        ("routes pin digits beta", "expected COHORT=VERSION"),
        ("routes pin digits beta=2 --expires soon", "--expires 'soon'"),
        ("routes pin digits be/ta=2", "expected COHORT=VERSION"),
        ("routes weights digits 1=100 --if-revision 0", "--if-revision"),
        ("routes explain digits --header x-tenant", "expected NAME:VALUE"),
        ("routes explain digits --version a/b", "is no name"),
        ("routes explain digits --request-id r-1 --key u-1", "--request-id: the record says what the caller sent"),
        ("routes apply nowhere.json", "nowhere.json: cannot be read"),
        ("routes apply .", "no document there"),
        ("routes weights digits 1=100 --max-moves -1", "--max-moves"),
        ("routes weights digits 1=100 --confirm-within 15", "expected a span from 1s to 7d"),
        ("routes weights digits 1=100 --confirm-within 8d", "expected a span from 1s to 7d"),
        ("routes preview nowhere.json --window 0s", "expected a span from 1s to 366d"),
        ("routes promote digits a/b", "is no name"),
        ("routes rollback digits --to 0", "--to"),
        ("routes rollback digits --cohorts drop", "'drop' is not one of"),
        ("routes history digits --limit 501", "--limit"),
        ("routes diff digits first", "valid integer"),
        ("cohorts set beta", "nothing says who is in it"),
        ("cohorts set beta --match x-tenant", "expected HEADER=VALUE"),
        ("cohorts set a/b --key u-1", "is no name"),
        ("versions register nowhere", "nowhere: expected a file that ends in"),
        ("versions show digits a/b", "is no name"),
        ("--admin-url ftp://h routes show digits", "--admin-url: expected http"),
        ("routes show digits --admin-url ftp://h", "--admin-url: expected http"),
        ("demo --requests 0", "--requests"),
        ("demo --url nowhere", "--url: expected http"),
        ("route show", "No such command"),
    ],
)
def test_a_command_ends_with_2_and_says_why_when_it_makes_no_sense(line: str, complaint: str) -> None:
    result = run(*shlex.split(line))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""


def test_nothing_is_registered_when_any_of_the_manifests_cannot_be_read(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("model: m\nversion: '1'\n", encoding="utf-8")
    (tmp_path / "bad.yaml").write_text("model: m\nversion: 1\n", encoding="utf-8")
    api = peer()
    result = run(
        "--admin-url", api.url, "versions", "register", *(str(tmp_path / f"{n}.yaml") for n in ("good", "bad"))
    )
    assert result.exit_code == 2
    assert "bad.yaml: version: required field is missing or no text" in result.stderr
    assert api.requests == []


def test_the_route_must_name_its_model_when_it_is_applied() -> None:
    result = run("routes", "apply", "-", text="split: {'1': 10000}")
    assert result.exit_code == 2
    assert "model: required field is missing" in result.stderr


def test_the_version_is_printed_and_nothing_else() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, "pointsman 0.1.0\n")


def test_the_admin_url_of_the_environment_counts_less_than_the_option(nobody: str) -> None:
    by_environment = CliRunner().invoke(app, ["routes", "show", "m"], env={"POINTSMAN_ADMIN_URL": nobody})
    assert nobody in by_environment.stderr
    both = CliRunner().invoke(app, ["routes", "show", "m", "--admin-url", "x"], env={"POINTSMAN_ADMIN_URL": nobody})
    assert "--admin-url: expected" in both.stderr
