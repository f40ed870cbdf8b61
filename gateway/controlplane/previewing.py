"""Who would move if a change were made: the shapes of a preview, as the admin API and the history have them.

Belongs here: what is asked and what is answered. Never here: working it out (that is `foreseeing`).
"""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from routing import Move, Moves, PinMoves

MOST_REQUESTS: Final = 200_000
"""Recorded requests that one preview looks at; of several models, each has its share."""
MOST_LISTED: Final = 1_000
"""Callers of one model that a preview names."""


class Traffic(Struct, frozen=True):
    """Whom to ask about: routing keys, each of one caller that sends nothing else; else the requests of the records.

    Of those, the ones of the last `window_s` seconds, at most `MOST_REQUESTS`.
    """

    keys: tuple[str, ...] | None = None
    window_s: int = 3_600


class Sample(Struct, frozen=True):
    """What was looked at. A caller is a distinct routing key; requests without one are no callers.

    `limited` says that there were more requests than were looked at. `undecidable_requests` could not be compared,
    because their records do not tell the `unknown_headers`, at which the rules look.
    """

    source: Literal["keys", "records"]
    requests: int
    keyed_requests: int
    callers: int
    since: str | None
    limited: bool
    unknown_headers: tuple[str, ...]
    undecidable_requests: int


class ListedCaller(Struct, frozen=True):
    """A caller that moves: its unit digest in hex, its key if it was given, and how many of its requests move."""

    unit: str
    key: str | None
    before: str | None
    after: str | None
    requests: int


class ModelPreview(Struct, frozen=True):
    """What a change does to the callers of one model; `revision` is its route's now, 0 if it has none.

    A version is None where the request is refused or the model has no route. Callers count by their newest request.
    """

    model: str
    revision: int
    sample: Sample
    callers_moved: int
    requests_moved: int
    share_of_requests_moved: float
    moves: tuple[Move, ...]
    pins: PinMoves
    moved: tuple[ListedCaller, ...]
    moved_left_out: int


class ChangePreview(Struct, frozen=True):
    """What a change does to the callers of every model that it touches, by the model's name."""

    callers_moved: int
    requests_moved: int
    models: tuple[ModelPreview, ...]


def sample_of(source: Literal["keys", "records"], moves: Moves, since: str | None, limited: bool) -> Sample:
    """Return what was looked at for these moves."""
    return Sample(
        source=source,
        requests=moves.requests,
        keyed_requests=moves.keyed_requests,
        callers=moves.callers,
        since=since,
        limited=limited,
        unknown_headers=moves.unknown_headers,
        undecidable_requests=moves.undecidable_requests,
    )


def preview_of(model: str, revision: int, moves: Moves, sample: Sample, keys: Mapping[bytes, str]) -> ModelPreview:
    """Return the preview of one model; `keys` has the routing keys that are known, by their unit digests."""
    listed = tuple(
        ListedCaller(one.unit.hex(), keys.get(one.unit), one.before, one.after, one.requests)
        for one in moves.moved[:MOST_LISTED]
    )
    return ModelPreview(
        model=model,
        revision=revision,
        sample=sample,
        callers_moved=len(moves.moved),
        requests_moved=moves.requests_moved,
        share_of_requests_moved=moves.requests_moved / moves.requests if moves.requests else 0.0,
        moves=moves.moves,
        pins=moves.pins,
        moved=listed,
        moved_left_out=len(moves.moved) - len(listed),
    )
