"""Request bodies of the Open Inference Protocol v2: their form, and the words for a body that has another.

Belongs here: the JSON around the tensors. Never here: tensors against a signature (`oip_v2_tensors`), statuses.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import MalformedBody

T = TypeVar("T")


class InputParameters(Struct):
    """The parameters of an input that change where its data is. Others are extensions and mean nothing here."""

    binary_data_size: Raw | UnsetType = UNSET
    shared_memory_region: Raw | UnsetType = UNSET


class InputTensor(Struct):
    """One element of `inputs`. `data` stays text until the datatype is known."""

    name: str
    shape: list[int]
    datatype: str
    data: Raw | UnsetType = UNSET
    parameters: InputParameters | None = None


class OutputParameters(Struct):
    """The parameters of a requested output that change what it is; `binary_data` does not: JSON answers it too."""

    classification: Raw | UnsetType = UNSET
    shared_memory_region: Raw | UnsetType = UNSET


class RequestedOutput(Struct):
    """One element of `outputs`."""

    name: str
    parameters: OutputParameters | None = None


class Parameters(Struct):
    """Any object. The parameters of a request are extensions, and none of them changes what is served here."""


class Body(Struct):
    """A request. null counts as absent where a field is optional; unknown fields are extensions and ignored."""

    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None
    id: str | None = None
    parameters: Parameters | None = None


class Identity(Struct):
    """The one field that a body is asked for when it is forwarded as it came; the whole is checked to be JSON."""

    id: str | None = None


_decode_body = msgspec.json.Decoder(Body).decode
_decode_identity = msgspec.json.Decoder(Identity).decode


def read_body(body: bytes) -> Body:
    """Return a request. Raises `MalformedBody`."""
    return _read(_decode_body, body)


def read_identity(body: bytes) -> Identity:
    """Return the id of a request and check that the rest is JSON. Raises `MalformedBody`."""
    return _read(_decode_identity, body)


def _read(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        if not body.isascii():
            body.decode()  # msgspec checks only those strings that it returns
        return decode(body)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise MalformedBody(_wrong_form(str(error))) from None
    except msgspec.DecodeError as error:
        raise MalformedBody(_not_json(str(error), body)) from None


# What msgspec says of a value of another form: https://jcristharif.com/msgspec/usage.html#validation
_COMPLAINT = re.compile(r"(?P<message>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`|]*?)(?: \| null)?`, got `(?P<given>[^`]*)`")
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number with a fraction",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}


def _wrong_form(complaint: str) -> str:
    found = _COMPLAINT.fullmatch(complaint)
    assert found is not None  # the pattern fits every text
    message, path = found["message"], found["path"] or ""
    if missing := _MISSING.fullmatch(message):
        return f"{path}.{missing['field']}: required field is missing".removeprefix(".")
    if expected := _EXPECTED.fullmatch(message):
        wanted, given = (_WORDS.get(word, word) for word in (expected["wanted"], expected["given"]))
        message = f"expected {wanted}, got {given}"
    return f"{path or 'the body'}: {message[0].lower()}{message[1:]}"


def _not_json(complaint: str, body: bytes) -> str:
    if not body.strip():
        return "the body is empty; expected a JSON object with the field inputs"
    if complaint == "Input data was truncated":  # which is also what msgspec says of half a surrogate pair
        return "the body is not JSON: it ends too early, or a string has half of a surrogate pair"
    return f"the body is not JSON: {complaint.removeprefix('JSON is malformed: ')}"
