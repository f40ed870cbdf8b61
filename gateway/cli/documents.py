"""Documents as they lie in files: JSON or YAML to plain JSON values, nothing repaired on the way.

Belongs here: finding and reading files, and what YAML must not do to a document. Never here: whether a document is a
legal route, cohort or manifest; the admin API says that, with the path of the field.
"""

import json
import re
import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.cli.failures import Misuse
from routing.codec import MAX_BYTES, DocumentError, read_object

SUFFIXES = (".json", ".yaml", ".yml")
STDIN = Path("-")


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; `-` is standard input, which may be JSON or YAML.

    Raises:
        Misuse: the file cannot be read or is neither JSON nor YAML of JSON's values; the message names the place.
    """
    name = "standard input" if path == STDIN else str(path)
    if path != STDIN and path.suffix not in SUFFIXES:
        raise Misuse(
            f"{name}: expected a file that ends in {', '.join(SUFFIXES)}", "Rename it, or pass - and pipe it in."
        )
    text = _read(path, name)
    # JSON is read by the strict JSON reader also on standard input, so that its errors speak of JSON.
    is_json = path.suffix == ".json" or (path == STDIN and text.lstrip().startswith(b"{"))
    return _read_json(text, name) if is_json else _read_yaml(text, name)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest with the path of its artifact made absolute: relative means beside the manifest.

    `path` is the file, or a folder with exactly one `manifest.json`, `.yaml` or `.yml`.

    Raises:
        Misuse: as `read_document`, or a folder with no manifest or several.
    """
    file = _manifest_file(path)
    document = read_document(file)
    backend = document.get("backend")
    onnx = backend.get("onnx") if isinstance(backend, dict) else None
    if isinstance(onnx, dict) and isinstance(onnx.get("path"), str):
        onnx["path"] = str(file.parent.absolute() / onnx["path"])
    return document


def _manifest_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / f"manifest{suffix}" for suffix in SUFFIXES if (path / f"manifest{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    names = " and ".join(file.name for file in found)
    raise Misuse(
        f"{path}: has {names}" if found else f"{path}: no manifest.json, manifest.yaml or manifest.yml in this folder",
        "Name the manifest that you mean." if found else "Name the manifest, or the folder that it lies in.",
    )


def _read(path: Path, name: str) -> bytes:
    try:
        if path == STDIN:
            text = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Misuse(f"{name}: cannot be read: {error.strerror or error}", "Check the path.") from None
    if len(text) > MAX_BYTES:
        raise Misuse(f"{name}: larger than {MAX_BYTES} bytes", "Check that this is the file you meant.")
    return text


def _read_json(text: bytes, name: str) -> dict[str, Any]:
    try:
        return dict(read_object(text))
    except DocumentError as error:
        raise Misuse(f"{name}: {error}", "Correct the file.") from None


class _PlainLoader(yaml.SafeLoader):
    """YAML that means what it looks like: JSON's values, every other plain word a text.

    YAML 1.1 would make a time of `2026-10-02`, a truth of `no`, a number of `0x1F` and of `010`, none of which a
    document means. Repeated keys, keys that are no text, and aliases are refused.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way: a class has its own table

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; an alias could stand for itself, or for a document of any size."""
        if self.check_event(yaml.AliasEvent):
            alias: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call] # the stubs give it no types
            raise _refusal(alias.start_mark, "aliases are not taken; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node whose keys are each a text of its own."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(key_node.start_mark, f"the key {key!r} is no text; write it in quotes")
            if key in seen:
                raise _refusal(key_node.start_mark, f"the key {json.dumps(key)} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _means(kind: str, pattern: str, first: str) -> None:
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern), list(first))


_means("null", r"^(?:null|~|)$", "n~")
_PlainLoader.yaml_implicit_resolvers[""] = [("tag:yaml.org,2002:null", re.compile("^$"))]
_means("bool", r"^(?:true|false)$", "tf")
_means("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789")
# An exponent needs a point or a sign: 123e456 may well be the beginning of a git commit.
_means("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+][0-9]+)$", "-0123456789")


def _refusal(mark: Any, problem: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _read_yaml(text: bytes, name: str) -> dict[str, Any]:
    try:
        document = yaml.load(text.decode(), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Misuse(f"{name}{line}: {error.problem or error.context}", "Correct the file.") from None
    except yaml.YAMLError as error:
        raise Misuse(f"{name}: not YAML: {error}", "Correct the file.") from None
    except UnicodeDecodeError as error:
        raise Misuse(f"{name}: not UTF-8 (byte {error.start})", "Save the file as UTF-8.") from None
    except ValueError:
        raise Misuse(f"{name}: a number has too many digits", "Correct the file.") from None
    except RecursionError:
        raise Misuse(f"{name}: nested too deeply", "Correct the file.") from None
    if not isinstance(document, dict):
        raise Misuse(f"{name}: expected one document with fields", "Correct the file.")
    _refuse_what_json_lacks(document, name, "")
    return document


def _refuse_what_json_lacks(value: object, name: str, path: str) -> None:
    """Refuse `.nan`, `!!binary`, `!!set` and the like, which YAML has and JSON has not."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_what_json_lacks(inner, name, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_what_json_lacks(inner, name, f"{path}[{index}]")
    else:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise Misuse(f"{name}: {path}: {value!r} has no place in JSON", "Write it as a text or a number.") from None


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their surrounding spaces, empty ones left out; `-` is standard input.

    Raises:
        Misuse: the file cannot be read, is too large, or is not UTF-8.
    """
    name = "standard input" if path == STDIN else str(path)
    text = _read(path, name)
    try:
        return [line.strip() for line in text.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Misuse(f"{name}: not UTF-8 (byte {error.start})", "Save the file as UTF-8.") from None
