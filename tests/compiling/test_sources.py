"""What is done to source before mypyc compiles it: structs become classes, and what it would get wrong is found.

Nothing is compiled here: `.ci/run` does that, and runs the tests of the request path on the result.
"""

from pathlib import Path
from typing import Any

import pytest

from compiling.modules import MODULES
from compiling.sources import CannotRewrite, check_awaits, check_names, with_classes
from compiling.stamp import ROOT, digest_of, source_digest, stamp

STRUCTS = '''
from collections.abc import Mapping
from msgspec import Struct

LIMIT = 3


class Plain(Struct):
    """Two fields, one with a default."""

    name: str
    count: int = LIMIT

    @property
    def twice(self) -> int:
        """Twice the count."""
        return 2 * self.count


class Frozen(Struct, frozen=True):
    """A value."""

    parts: tuple[int, ...] = ()
    """What it is made of."""
    headers: Mapping[str, str] = {}


class Single(Struct, eq=False):
    inner: Plain | None = None


class Other:
    kept: int = 1
'''


def classes_of(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "rewritten", "exec"), names)
    return names


@pytest.fixture(params=["structs", "classes"])
def made(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The module above as it stands, and with its structs written out: both behave alike."""
    return classes_of(STRUCTS if request.param == "structs" else with_classes(STRUCTS))


def test_fields_are_given_by_place_by_name_or_by_default(made: dict[str, Any]) -> None:
    one, other = made["Plain"]("a", 2), made["Plain"](name="a")
    assert (one.name, one.count, one.twice) == ("a", 2, 4)
    assert (other.count, other.twice) == (3, 6)
    one.count = 3
    assert one == other


def test_values_are_compared_hashed_and_shown(made: dict[str, Any]) -> None:
    first, second, third = made["Frozen"]((1,)), made["Frozen"]((1,)), made["Frozen"]((2,))
    assert first == second != third
    assert first != (1,)
    assert made["Plain"]("a") != first
    assert repr(made["Plain"]("a")) == "Plain(name='a', count=3)"
    assert made["Single"]() != made["Single"]()


def test_values_without_a_default_have_to_be_given(made: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        made["Plain"]()


def test_structs_are_written_out_and_everything_else_stays() -> None:
    written = with_classes(STRUCTS)
    names = classes_of(written)
    assert [names[name].__mro__[1:] for name in ("Plain", "Frozen", "Single")] == [(object,)] * 3
    assert names["Plain"].__doc__ == "Two fields, one with a default."
    assert hash(names["Frozen"]((1,), "")) == hash(names["Frozen"]((1,), ""))
    assert STRUCTS[STRUCTS.index("class Other") :] in written
    assert STRUCTS[: STRUCTS.index("class Plain")] in written


@pytest.mark.parametrize(
    ("struct", "why"),
    [
        ("class A(Struct, forbid_unknown_fields=True):\n    x: int\n", "A has the option forbid_unknown_fields"),
        ("class A(Struct, Generic[T]):\n    x: T\n", "A has other bases"),
        ("class A(Struct):\n    x: list[int] = []\n", r"A\.x: the default \[\]"),
        ("class A(Struct):\n    x: list[int] = field(default_factory=list)\n", r"A\.x: the default field"),
    ],
)
def test_a_struct_that_a_class_cannot_stand_for_is_refused(struct: str, why: str) -> None:
    with pytest.raises(CannotRewrite, match=why):
        with_classes(struct)


@pytest.mark.parametrize(
    "body",
    [
        "    try:\n        await a\n    except ValueError:\n        await b\n",
        "    try:\n        await a\n    finally:\n        await b\n",
        "    try:\n        await a\n    finally:\n        async for c in b:\n            pass\n",
        "    async with a:\n        pass\n",
    ],
)
def test_a_coroutine_that_waits_while_it_handles_an_exception_is_refused(body: str) -> None:
    with pytest.raises(CannotRewrite, match="line"):
        check_awaits(f"async def f(a, b):\n{body}")


def test_a_coroutine_may_wait_before_and_after_it_handles_one() -> None:
    check_awaits("async def f(a, b):\n    try:\n        await a\n    except ValueError:\n        b()\n    await b\n")


def test_an_attribute_that_becomes_a_keyword_of_c_is_refused() -> None:
    check_names("self._signature = 1\n")
    with pytest.raises(CannotRewrite, match="line 1: call _inline something else"):
        check_names("self._inline = 1\n")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_list_is_there_and_can_be_compiled_as_far_as_can_be_told(name: str) -> None:
    source = (ROOT / name).read_text()
    check_awaits(source)
    check_names(source)
    compile(with_classes(source), name, "exec")


def test_a_build_tells_of_which_source_it_is(tmp_path: Path) -> None:
    assert digest_of(tmp_path) == ""
    stamp(tmp_path, source_digest())
    assert digest_of(tmp_path) == source_digest()
