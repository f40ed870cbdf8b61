"""Which answers of backends are passed on as they come, and one that came all at once as if it were one of them.

Belongs here: telling a stream by its head. Never here: reading or sending one.
"""

from collections.abc import Callable
from typing import Final

from gateway.arrival import Arrival
from gateway.messages import Headers

_EVENT_STREAM: Final = "text/event-stream"
"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
_BODILESS: Final = frozenset({204, 304})


def is_stream(status: int, content_type: str) -> bool:
    """Tell whether an answer is passed on as it comes: server-sent events that tell of no error."""
    if status >= 400 or status in _BODILESS:
        return False
    return content_type.partition(";")[0].strip().lower() == _EVENT_STREAM


def flows(status: int, headers: Headers) -> bool:
    """Tell the same by headers, whose names are in lower case."""
    return is_stream(status, next((value for name, value in headers if name == "content-type"), ""))


class Arrived:
    """The `messages.Flow` of a body that is all there."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.paused = False

    def start(self, take: Callable[[bytes], None]) -> Arrival[None]:
        """Give it to `take`, which is the end of it."""
        if self._body:
            take(self._body)
        ended: Arrival[None] = Arrival()
        ended.arrive(None)
        return ended

    def pause(self) -> None:
        """Do nothing: there is no more to come."""

    def resume(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
