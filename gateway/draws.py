"""What the splits have given to callers before: most callers come again, and a draw costs as much as the rest of a
decision.

Belongs here: remembering draws. Never here: drawing (`routing`), or anything that a draw does not depend on.
"""

from typing import Final

from routing import Route, draw

MOST: Final = 32_768
"""Draws that are remembered, of all routes together; some 150 bytes each. Then all are forgotten."""


class Draws:
    """Draws of the routes in force. A draw depends on the route and the caller alone, and a route never changes: one
    that takes its place is another.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Route, dict[bytes, str]]] = {}
        self._count = 0

    def draw(self, route: Route, unit: bytes) -> str:
        """Return what `routing.draw` does. For callers with a routing key: the digest of a record id comes once."""
        known = self._known.get(route.model)
        if known is None or known[0] is not route:
            known = self._known[route.model] = (route, {})
        drawn = known[1].get(unit)
        if drawn is None:
            drawn = draw(route, unit)
            self._count += 1
            if self._count > MOST:
                self._known.clear()
                self._count = 0
            else:
                known[1][unit] = drawn
        return drawn
