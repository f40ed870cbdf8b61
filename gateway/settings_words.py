"""What is wrong with a setting, in words of ours: pydantic's speak of Python's types and can quote what was given.

Belongs here: wording. Never here: the settings themselves, or a value of one, which may be a secret.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic_core import ErrorDetails

# By pydantic's name of the mistake; the braces are filled from its context.
_WORDS = {
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "finite_number": "expected a finite number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "greater_than_equal": "expected at least {ge}",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "int_type": "expected a whole number",
    "less_than_equal": "expected at most {le}",
    "literal_error": "expected {expected}",
    "model_type": "expected a group of settings",
    "path_type": "expected the path of a folder",
    "string_pattern_mismatch": "expected 1 to 64 characters from A-Z a-z 0-9 . _ -, the first a letter or digit",
    "string_type": "expected a text",
    "value_error": "{error}",
}


_TABLE = "see the README's table of settings"


def misfit(details: ErrorDetails, known: Iterable[str]) -> str:
    """Return what pydantic found wrong with one setting; `known` are the names of all settings."""
    if details["type"] == "extra_forbidden":
        return no_such(dotted(details), known)
    return _WORDS.get(details["type"], details["msg"]).format(**details.get("ctx", {}))


def dotted(details: ErrorDetails) -> str:
    """Return the name of the setting at fault, such as `onnx.pool_threads`."""
    return ".".join(str(part) for part in details["loc"])


def no_such(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return that `name` is none of the `known` ones, and which of them is nearest.

    `prefix` stands before what is known but not before `name`, where it would make everything alike.
    """
    near = get_close_matches(name, known, n=1)
    return f"no such setting; did you mean {prefix}{near[0]}?" if near else f"no such setting; {_TABLE}"
