"""Alarms: what is wrong with the rules of a worker, for as long as it is.

Belongs here: beginning and end of a trouble, once each. Never here: finding out that there is one.
"""

from collections.abc import Mapping

from gateway.logs import logger
from gateway.metrics import Board, Slot

_HINTS = {
    "store": (
        "the last good rules stay in force and changes are refused; decide with `pointsman rules republish` (the last "
        "good rules of a gateway are right) or `pointsman rules accept` (those in the store are); `pointsman status` "
        "shows both"
    ),
    "documents": "the last good document stays in force; publish one that parses",
    "behind": "this worker goes not ready until it has caught up; the log says what keeps it",
}
_DEFECT = "the rules in force stay in force; the log has the details, please report them"


class Alarms:
    """One log line when a trouble begins, one when it ends, and the board's RULES_ALARM set in between."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._present: dict[str, str] = {}

    @property
    def present(self) -> Mapping[str, str]:
        """What is wrong now, by what it is about."""
        return self._present

    def note(self, about: str, why: str | None) -> None:
        """Say what is wrong now about something, or, with None or nothing, that it is right."""
        if (why or None) == self._present.get(about):
            return
        if why:
            self._present[about] = why
            logger().error("rules_alarm", about=about, why=why, hint=_HINTS.get(about, _DEFECT))
        else:
            logger().info("rules_alarm_over", about=about, was=self._present.pop(about))
        self._board[Slot.RULES_ALARM] = int(bool(self._present))
