"""Strict JSON for the documents of the rules: what does not fit is refused with the path of the field.

Belongs here: text ⇄ types, and the checks that span fields. Never here: repair. Nothing is coerced, no weight is
defaulted, no unknown or repeated field is dropped.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from routing.types import BASIS_POINTS, Cohort, Route

_AT_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING_FIELD = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)
_MAX_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


class DocumentError(ValueError):
    """A document that does not fit its type.

    Attributes:
        path: where in the document, such as `split["2"]` or `pins[0].expires`; empty for the document itself.
        message: what was expected and what to do.
    """

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message
        super().__init__(f"{path}: {message}" if path else message)


def parse_route(document: bytes | Mapping[str, Any]) -> Route:
    """Return the route of a JSON text or of an already decoded object, defaults filled in.

    Raises:
        DocumentError: with the path of the first field that does not fit.
    """
    fields = dict(read_object(document))
    if "salt" not in fields and isinstance(fields.get("model"), str):
        fields["salt"] = fields["model"]
    route = convert(fields, Route)
    _check_split(route)
    _check_versions(route)
    return route


def parse_cohort(document: bytes | Mapping[str, Any]) -> Cohort:
    """Return the cohort of a JSON text or of an already decoded object.

    Raises:
        DocumentError: with the path of the first field that does not fit.
    """
    cohort = convert(read_object(document), Cohort)
    _check_repeats("keys", cohort.keys)
    return cohort


def encode_document(document: msgspec.Struct) -> bytes:
    """Return the canonical JSON of a document: every field, defaults included, in one fixed order of keys.

    Two documents that mean the same have the same bytes, so revisions and digests can compare them.
    """
    return msgspec.json.encode(document, order="deterministic")


def read_object(document: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the JSON object in `document`, refusing repeated fields, which most parsers drop in silence.

    Raises:
        DocumentError: not UTF-8, not JSON, not an object, too large or nested too deeply, or a field twice.
    """
    if not isinstance(document, bytes):
        return document
    if len(document) > _MAX_BYTES:
        raise DocumentError("", f"the document has {len(document)} bytes; at most {_MAX_BYTES} are allowed")
    try:
        value = json.loads(document.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise DocumentError("", f"the document is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DocumentError("", f"the document is not JSON: {error}") from None
    except RecursionError:
        raise DocumentError("", "the document is nested too deeply") from None
    if not isinstance(value, dict):
        raise DocumentError("", "expected a JSON object")
    return value


def convert(fields: Mapping[str, Any], kind: type[T]) -> T:
    """Return `fields` as a `kind`, with msgspec's complaint turned into the path and the words of ours.

    Raises:
        DocumentError: with the path of the first field that does not fit.
    """
    try:
        return msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _document_error(str(error), fields) from None


def _document_error(complaint: str, fields: Mapping[str, Any]) -> DocumentError:
    found = _AT_PATH.match(complaint)
    assert found is not None  # the pattern matches every text
    message, path = found["message"], (found["path"] or "").removeprefix(".")
    if unknown := _UNKNOWN_FIELD.match(message):
        return DocumentError(_join(path, unknown["field"]), "unknown field; remove it or check its spelling")
    if missing := _MISSING_FIELD.match(message):
        return DocumentError(_join(path, missing["field"]), "required field is missing")
    return DocumentError(_name_the_key(path, fields), _plain(message))


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _name_the_key(path: str, fields: Mapping[str, Any]) -> str:
    """Replace msgspec's `name[...]`, which does not say which key of a mapping is meant, by the offending key."""
    if path != "split[...]" and path != "split":
        return path
    split = fields.get("split")
    for version, weight in split.items() if isinstance(split, Mapping) else ():
        try:
            msgspec.convert({version: weight}, Route.__annotations__["split"], strict=True)
        except msgspec.ValidationError:
            return f"split[{json.dumps(version)}]"
    return path


_PLAIN: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"^Expected `str` matching regex .*$",
        lambda _: "expected a legal name or value; see the README's table of limits",
    ),
    (r"^Expected `(.*)`, got `(.*)`$", lambda m: f"expected {m[1]}, got {m[2]}"),
    (r"^Expected `(.*)`$", lambda m: f"expected {m[1]}"),
)


def _plain(message: str) -> str:
    for pattern, words in _PLAIN:
        if found := re.match(pattern, message):
            return words(found)
    return message[0].lower() + message[1:].replace("`", "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise DocumentError(name, "the field stands twice in one object")
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> None:
    raise DocumentError("", f"{name} is not JSON")


def _check_split(route: Route) -> None:
    total = sum(route.split.values())
    if total != BASIS_POINTS:
        raise DocumentError(
            "split", f"the weights sum to {total} basis points; they must sum to exactly {BASIS_POINTS}"
        )


def _check_versions(route: Route) -> None:
    if not route.key:
        raise DocumentError("key", "expected at least one source of the routing key")
    _check_repeats("shadows", tuple(shadow.version for shadow in route.shadows), ".version")
    _check_repeats("fallback", route.fallback)


def _check_repeats(name: str, values: tuple[str, ...], field: str = "") -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise DocumentError(f"{name}[{index}]{field}", f"{json.dumps(value)} stands twice")
