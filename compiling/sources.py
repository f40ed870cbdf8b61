"""Source for mypyc: structs of msgspec written out as classes, and what compiled code would do wrong.

Belongs here: source text in, source text out. Never here: which modules, or files.
"""

import ast
from collections.abc import Sequence
from typing import Final

_STRUCT: Final = frozenset({"Struct", "msgspec.Struct"})
_PASSED_OVER: Final = frozenset({"frozen"})
"""What changes nothing in the class: mypy has checked that nobody assigns to a frozen one."""
_KEPT: Final = frozenset({"eq"})


_C = "alignof asm attribute complex const imag inline label real restrict signed thread typeof volatile"
_TAKEN: Final = frozenset(f"_{word}" for word in _C.split())
"""Keywords of C compilers are these with one more underscore before them: `_inline` becomes a field `__inline`."""


class CannotRewrite(ValueError):
    """A struct uses something of msgspec that a class written out has not got; the message says what."""


def with_classes(source: str) -> str:
    """Return the source of a module in which each struct is a class of the same fields, defaults and methods, and is
    compared, hashed and shown as before.

    Compiled code reads a field of its own classes as C reads one of a struct; for msgspec's it has to ask as Python
    does. (Interpreted, msgspec's are the faster ones.)

    Raises:
        CannotRewrite: a struct uses more of msgspec than that.
    """
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) in _STRUCT for base in node.bases):
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [_written_out(node, source)]
    return "".join(lines)


def check_names(source: str) -> None:
    """Check that no attribute becomes a keyword of C.

    Raises:
        CannotRewrite: one is; the message says where.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in _TAKEN:
            raise CannotRewrite(f"line {node.lineno}: call {node.attr} something else, C has a keyword for it")


def check_awaits(source: str) -> None:
    """Check that no coroutine waits while it handles an exception.

    One compiled by mypyc (2.4) that does leaves the exception behind as the one that the whole thread handles just now;
    whatever is raised next, anywhere, has it as its context, and a bare `raise` may raise it (seen here).

    Raises:
        CannotRewrite: one does; the message says in which line.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncWith):
            raise CannotRewrite(f"line {node.lineno}: `async with` may wait in there for its end")
        if isinstance(node, ast.Try):
            for within in (*node.handlers, *node.finalbody):
                for one in ast.walk(within):
                    if isinstance(one, ast.Await | ast.AsyncFor | ast.Yield | ast.YieldFrom):
                        raise CannotRewrite(f"line {one.lineno}: waits in an `except` or a `finally`")


def _written_out(node: ast.ClassDef, source: str) -> str:
    if len(node.bases) > 1:
        raise CannotRewrite(f"{node.name} has other bases beside Struct")
    options = {str(option.arg) for option in node.keywords}
    if unknown := options - _PASSED_OVER - _KEPT:
        raise CannotRewrite(f"{node.name} has the option {', '.join(sorted(unknown))}")
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    rest = [one for one in node.body if not isinstance(one, ast.AnnAssign)]
    parts = [f"class {node.name}:\n"]
    if ast.get_docstring(node) is not None:
        parts += _as_it_stands(rest.pop(0), source)
    parts += [_constructor(node.name, fields)]
    named = [ast.unparse(field.target) for field in fields]
    if "eq" not in options:
        parts += [_comparison(node.name, named, hashed="frozen" in options)]
    parts += [_shown(node.name, named)]
    for one in rest:
        if not isinstance(one, ast.Expr):  # a string that tells of a field
            parts += ["\n", *_as_it_stands(one, source)]
    return "".join(parts)


def _as_it_stands(node: ast.stmt, source: str) -> list[str]:
    decorated: list[ast.expr] = getattr(node, "decorator_list", [])
    start = min([node.lineno, *(one.lineno for one in decorated)])
    assert node.end_lineno is not None
    return [*source.splitlines(keepends=True)[start - 1 : node.end_lineno], "\n"]


def _constructor(name: str, fields: Sequence[ast.AnnAssign]) -> str:
    taken, kept = [], []
    for field in fields:
        target, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        if field.value is None:
            taken.append(f"{target}: {kind}")
        elif _is_shared(kind, field.value):
            taken.append(f"{target}: {kind} = {ast.unparse(field.value)}")
        else:
            raise CannotRewrite(f"{name}.{target}: the default {ast.unparse(field.value)} may be one for each object")
        kept.append(f"        self.{target} = {target}\n")
    return f"    def __init__(self, {', '.join(taken)}) -> None:\n{''.join(kept)}\n"


def _is_shared(kind: str, default: ast.expr) -> bool:
    """Tell whether one default can be that of all objects: nobody changes it, by what it is or by its type."""
    if isinstance(default, ast.Constant | ast.Name):
        return True
    written = ast.unparse(default)
    return written == "()" or (written == "{}" and kind.startswith("Mapping["))


def _comparison(name: str, fields: Sequence[str], *, hashed: bool) -> str:
    same = " and ".join(f"self.{field} == other.{field}" for field in fields)
    written = (
        "    def __eq__(self, other: object) -> bool:\n"
        f"        if not isinstance(other, {name}):\n            return NotImplemented\n        return {same}\n\n"
    )
    if hashed:
        values = "".join(f"self.{field}, " for field in fields)
        written += f"    def __hash__(self) -> int:\n        return hash(({values}))\n\n"
    return written


def _shown(name: str, fields: Sequence[str]) -> str:
    values = ", ".join(f"{field}={{self.{field}!r}}" for field in fields)
    return f'    def __repr__(self) -> str:\n        return f"{name}({values})"\n'
