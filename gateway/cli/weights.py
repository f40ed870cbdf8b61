"""Shares as people write them: `1=90 2=10`, `3=12.5` in percent, to and from integer basis points.

Belongs here: exact decimal arithmetic on what was typed. Never here: floats, or a repair of a wrong sum.
"""

import re
from collections.abc import Mapping, Sequence

from gateway.cli.failures import Misuse
from routing.types import BASIS_POINTS

_SHARE = re.compile(r"(?P<version>[A-Za-z0-9][A-Za-z0-9._-]{0,63})=(?P<percent>.*)", re.DOTALL)
_PERCENT = re.compile(r"(?P<whole>[0-9]{1,3})(?:\.(?P<part>[0-9]{1,2}))?")


def parse_split(arguments: Sequence[str]) -> dict[str, int]:
    """Return basis points by version of arguments such as `1=90`, in the order given.

    Raises:
        Misuse: naming the argument that is no share, the version that stands twice, or the sum if it is not 100.
    """
    split: dict[str, int] = {}
    for argument in arguments:
        version, points = parse_share(argument)
        if version in split:
            raise Misuse(f"{argument}: version {version} stands twice", "Name each version once.")
        split[version] = points
    total = sum(split.values())
    if total != BASIS_POINTS:
        gap = abs(BASIS_POINTS - total)
        found = f"{percent(gap)} % {'missing' if total < BASIS_POINTS else 'too much'}"
        raise Misuse(
            f"the weights sum to {percent(total)} %; they must sum to exactly 100 ({found})",
            "Name every version that is to get traffic; those not mentioned leave the split.",
        )
    return split


def parse_share(argument: str) -> tuple[str, int]:
    """Return the version and the basis points of one `VERSION=PERCENT`.

    Raises:
        Misuse: not of that form, no legal version name, negative, above 100, or with more than two decimals.
    """
    found = _SHARE.fullmatch(argument)
    if found is None:
        raise Misuse(f"{argument!r}: expected VERSION=PERCENT", "Write for example 1=90 or 2=12.5.")
    return found["version"], _points(argument, found["percent"])


def _points(argument: str, text: str) -> int:
    found = _PERCENT.fullmatch(text)
    if found is None:
        raise Misuse(
            f"{argument!r}: {text!r} is no percentage from 0 to 100 with at most two decimals",
            "Write for example 90, 12.5 or 0.25, without a % sign.",
        )
    points = int(found["whole"]) * 100 + int((found["part"] or "").ljust(2, "0"))
    if points > BASIS_POINTS:
        raise Misuse(f"{argument!r}: {text} is more than 100 %", "Write a percentage from 0 to 100.")
    return points


def percent(points: int) -> str:
    """Return basis points as a percentage with as many decimals as it needs: 9000 is `90`, 1250 is `12.5`."""
    whole, part = divmod(points, 100)
    return f"{whole}.{part:02d}".rstrip("0").rstrip(".") if part else str(whole)


def split_words(split: Mapping[str, int]) -> str:
    """Return a split as it would be typed: `1=90 2=10`."""
    return " ".join(f"{version}={percent(points)}" for version, points in split.items())
