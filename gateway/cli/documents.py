"""Documents as they lie in files: JSON or YAML to plain JSON values, nothing repaired on the way.

Belongs here: finding and reading files. Never here: what YAML means (`plain_yaml`), or whether a document is a legal
route, cohort or manifest; the admin API says that, with the path of the field.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.cli.failures import Misuse
from gateway.cli.plain_yaml import read_yaml, read_yaml_documents
from routing.codec import MAX_BYTES, DocumentError, read_json, read_object

SUFFIXES = (".json", ".yaml", ".yml")
STDIN = Path("-")
MANY_BYTES = 64 * 1024 * 1024
"""Size of all documents that one change may have."""


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; `-` is standard input, which may be JSON or YAML.

    Raises:
        Misuse: the file cannot be read or is neither JSON nor YAML of JSON's values; the message names the place.
    """
    name = _name(path)
    text = _read(path, name)
    if not _is_json(path, text, "{"):
        return read_yaml(text, name)
    try:
        return dict(read_object(text))
    except DocumentError as error:
        raise Misuse(f"{name}: {error}", "Correct the file.") from None


def read_documents(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return every document of files: routes, cohorts and version manifests, as many as there are in each.

    A YAML file has several with `---` between them, a JSON file in an array. A folder stands for every JSON and YAML
    file in it, by name. The path of a manifest's artifact is made absolute: relative means beside its file.

    Raises:
        Misuse: as `read_document`, or there is no document.
    """
    documents = []
    for file in (file for path in paths for file in _files(path)):
        for document in _documents_of(file):
            _make_artifact_absolute(document, file)
            documents.append(document)
    if not documents:
        raise Misuse(f"{', '.join(map(str, paths))}: no document there", "Name a file with a route, cohort or version.")
    return documents


def _files(path: Path) -> list[Path]:
    if path == STDIN or not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())


def _documents_of(path: Path) -> list[dict[str, Any]]:
    name = _name(path)
    text = _read(path, name, MANY_BYTES)
    if not _is_json(path, text, "{["):
        return read_yaml_documents(text, name)
    try:
        value = read_json(text, MANY_BYTES)
    except DocumentError as error:
        raise Misuse(f"{name}: {error}", "Correct the file.") from None
    documents: list[Any] = value if isinstance(value, list) else [value]
    for index, document in enumerate(documents):
        if not isinstance(document, dict):
            place = f", [{index}]" if isinstance(value, list) else ""
            raise Misuse(f"{name}{place}: expected a JSON object, or an array of them", "Correct the file.")
    return documents


def _name(path: Path) -> str:
    name = "standard input" if path == STDIN else str(path)
    if path != STDIN and path.suffix not in SUFFIXES:
        raise Misuse(
            f"{name}: expected a file that ends in {', '.join(SUFFIXES)}", "Rename it, or pass - and pipe it in."
        )
    return name


def _is_json(path: Path, text: bytes, openings: str) -> bool:
    """Tell what a text is read as: JSON by the strict reader also on standard input, so that errors speak of JSON."""
    return path.suffix == ".json" or (path == STDIN and text.lstrip()[:1] in [char.encode() for char in openings])


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest with the path of its artifact made absolute: relative means beside the manifest.

    `path` is the file, or a folder with exactly one `manifest.json`, `.yaml` or `.yml`.

    Raises:
        Misuse: as `read_document`, or a folder with no manifest or several.
    """
    file = _manifest_file(path)
    document = read_document(file)
    _make_artifact_absolute(document, file)
    return document


def _make_artifact_absolute(document: dict[str, Any], file: Path) -> None:
    backend = document.get("backend")
    onnx = backend.get("onnx") if isinstance(backend, dict) else None
    if isinstance(onnx, dict) and isinstance(onnx.get("path"), str):
        onnx["path"] = str(file.parent.absolute() / onnx["path"])


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


def _read(path: Path, name: str, limit: int = MAX_BYTES) -> bytes:
    try:
        if path == STDIN:
            text = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                text = file.read(limit + 1)
    except OSError as error:
        raise Misuse(f"{name}: cannot be read: {error.strerror or error}", "Check the path.") from None
    if len(text) > limit:
        raise Misuse(f"{name}: larger than {limit} bytes", "Check that this is the file you meant.")
    return text


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
