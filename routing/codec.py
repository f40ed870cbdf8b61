"""Strict JSON for the documents of the rules: what does not fit is refused with the path of the field.

Belongs here: text ⇄ types, and the checks that span fields. Never here: repair. Nothing is coerced, no weight is
defaulted, no unknown or repeated field is dropped.
"""

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from routing.faults import MAX_DIGITS, Fault, Mark, find_fault, find_json_fault, member
from routing.types import BASIS_POINTS, Cohort, Route

MAX_BYTES = 16 * 1024 * 1024
"""Size of the largest document: a cohort of 100 000 UUIDs, one to an indented line, has about 5 MB."""

T = TypeVar("T")


class DocumentError(ValueError):
    """A document that does not fit its type.

    Attributes:
        path: where in the document, such as `split["2"]` or `pins[0].expires`; empty for the document itself.
        message: what was expected and what to do. It repeats no text of the document but names of fields and keys.
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
    route = recognised(document, Route) or convert(_with_salt(_decoded(document)), Route)
    _check_split(route)
    if route.brake is not None and route.brake.failures > route.brake.of:
        raise DocumentError(
            "brake.failures",
            f"{route.brake.failures} of {route.brake.of} requests can never fail; at most {route.brake.of}",
        )
    # A second entry of the same name could only be a mistake. Pins are no such list: two pins of one cohort are a
    # hand-over, where the second takes effect when the first expires.
    refuse_repeats([source.header.lower() for source in route.key], "key[{}].header")
    refuse_repeats([shadow.version for shadow in route.shadows], "shadows[{}].version")
    refuse_repeats(route.fallback, "fallback[{}]")
    refuse_repeats(route.capture.redact, "capture.redact[{}]")
    return route


def parse_cohort(document: bytes | Mapping[str, Any]) -> Cohort:
    """Return the cohort of a JSON text or of an already decoded object.

    Raises:
        DocumentError: with the path of the first field that does not fit.
    """
    cohort = recognised(document, Cohort) or parse_as(document, Cohort)
    refuse_repeats(cohort.keys, "keys[{}]")
    for index, clause in enumerate(cohort.match):
        refuse_repeats(clause.values, f"match[{index}].in[{{}}]")
    # Hashing 100 000 keys takes about 0.1 s: now, and not while the first request of the cohort is waiting.
    _ = cohort.digests
    return cohort


def encode_document(document: msgspec.Struct) -> bytes:
    """Return the canonical JSON of a document: every field, defaults included, in one fixed order of keys.

    Documents of equal fields have equal bytes, however their texts were spaced and ordered, so revisions and digests
    can compare them.
    """
    return msgspec.json.encode(document, order="deterministic")


def read_object(document: bytes | Mapping[str, Any], limit: int = MAX_BYTES) -> Mapping[str, Any]:
    """Return the JSON object in `document`, of whatever kind, as plain values. `limit` is the bytes it may have.

    Raises:
        DocumentError: as `read_json`, or not an object.
    """
    value = read_json(document, limit) if isinstance(document, bytes) else document
    if not isinstance(value, Mapping):
        raise DocumentError("", "expected a JSON object")
    return value


def read_json(document: bytes, limit: int = MAX_BYTES) -> object:
    """Return the value of a JSON text as plain values. `limit` is the bytes it may have.

    Raises:
        DocumentError: not UTF-8, not JSON, too large or nested too deeply; a field stands twice, which most parsers
            pass over in silence; a number that is not finite, or a text that is no Unicode.
    """
    value = _decode(document, limit)
    if fault := find_json_fault(value, "", member):
        raise DocumentError(*fault)
    return value


def parse_as(document: bytes | Mapping[str, Any], kind: type[T]) -> T:
    """Return a JSON text or an already decoded object as a `kind` of document.

    Raises:
        DocumentError: with the path of the first field that does not fit.
    """
    return convert(_decoded(document), kind)


_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def recognised(document: bytes | Mapping[str, Any], kind: type[T]) -> T | None:
    """Return the document of a text that is just as `encode_document` writes it, or None for any other.

    A worker reads its documents back from a store where all are canonical, and this takes less than half the time.
    Nothing that the strict way refuses gets by: a field that stands twice, a number or a text that JSON has no place
    for, all come out differently when the document is written again. Only the limits of free-form values (levels,
    digits) are left to the caller.
    """
    if not isinstance(document, bytes) or len(document) > MAX_BYTES:
        return None
    try:
        if kind not in _decoders:
            _decoders[kind] = msgspec.json.Decoder(kind)
        found: T = _decoders[kind].decode(document)
        return found if msgspec.json.encode(found, order="deterministic") == document else None
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None


def convert(fields: object, kind: type[T]) -> T:
    """Return `fields` as a `kind` of document.

    Raises:
        DocumentError: with the path of the first field that does not fit, in our words rather than msgspec's.
    """
    try:
        document = msgspec.convert(fields, kind, strict=True)
        # What is accepted must be fit to be kept: this finds texts that are no UTF-8, which convert lets pass.
        msgspec.json.encode(document)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        fault = find_fault(fields, msgspec.inspect.type_info(kind)) or Fault("", str(error))
        raise DocumentError(*fault) from None
    return document


def refuse_repeats(values: Sequence[Hashable], path: str) -> None:
    """Refuse a list that names something twice; `path` is that of an entry, with `{}` for its index.

    Raises:
        DocumentError: with the path of the first repetition.
    """
    if len(set(values)) == len(values):
        return
    first = {value: index for index, value in reversed([*enumerate(values)])}
    again = next(index for index, value in enumerate(values) if first[value] != index)
    raise DocumentError(path.format(again), f"repeats {path.format(first[values[again]])}; remove one of them")


def _with_salt(fields: object) -> object:
    if isinstance(fields, Mapping) and "salt" not in fields and isinstance(fields.get("model"), str):
        return {**fields, "salt": fields["model"]}
    return fields


def _check_split(route: Route) -> None:
    total = sum(route.split.values())
    if total != BASIS_POINTS:
        raise DocumentError(
            "split", f"the weights sum to {total} basis points; they must sum to exactly {BASIS_POINTS}"
        )


def _decoded(document: bytes | Mapping[str, Any]) -> object:
    return _decode(document) if isinstance(document, bytes) else document


def _decode(text: bytes, limit: int = MAX_BYTES) -> object:
    """Return the value of a JSON text, with a `Mark` wherever `json` would let something pass that is not allowed."""
    if len(text) > limit:
        raise DocumentError("", f"the document has {len(text)} bytes; at most {limit} are allowed")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Mark:
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        return Mark("the field stands twice in one object", twice)

    def integer(digits: str) -> int | Mark:
        return int(digits) if len(digits) <= MAX_DIGITS else Mark(f"an integer of more than {MAX_DIGITS} digits")

    def constant(name: str) -> Mark:
        return Mark(f"{name} is not JSON")

    try:
        return json.loads(text.decode(), object_pairs_hook=once, parse_int=integer, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise DocumentError("", f"the document is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DocumentError("", f"the document is not JSON: {error}") from None
    except RecursionError:
        raise DocumentError("", "the document is nested too deeply") from None
