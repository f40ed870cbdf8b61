"""YAML that means what it looks like: JSON's values, every other plain word a text.

Belongs here: what YAML must not do to a document. Never here: files, or whether a document is legal.
"""

import json
import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from gateway.cli.failures import Misuse


def read_yaml(text: bytes, name: str) -> dict[str, Any]:
    """Return the one document of a YAML text, in JSON's values; `name` is what messages call the text.

    Raises:
        Misuse: it is no YAML of JSON's values, or not one document with fields; the message names the place.
    """
    document = _loaded(text, name, several=False)
    if not isinstance(document, dict):
        raise Misuse(f"{name}: expected one document with fields", "Correct the file.")
    _refuse_what_json_lacks(document, name, "")
    return document


def read_yaml_documents(text: bytes, name: str) -> list[dict[str, Any]]:
    """Return every document of a YAML text (`---` stands between two); an empty one is passed over.

    Raises:
        Misuse: as `read_yaml`.
    """
    documents = [document for document in _loaded(text, name, several=True) if document is not None]
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise Misuse(f"{name}, document {number}: expected a document with fields", "Correct the file.")
        _refuse_what_json_lacks(document, f"{name}, document {number}", "")
    return documents


class _PlainLoader(yaml.SafeLoader):
    """Reads plain words as JSON would.

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


def _loaded(text: bytes, name: str, *, several: bool) -> Any:
    try:
        if several:
            return list(yaml.load_all(text.decode(), Loader=_PlainLoader))
        return yaml.load(text.decode(), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, made stricter
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
