"""Alarms: what is wrong with the rules of a worker, for as long as it is.

Belongs here: beginning and end of a trouble, once each. Never here: finding out that there is one.
"""

from gateway.logs import logger
from gateway.metrics import Board, Slot

_HINT = (
    "the last good rules stay in force; put the store right, or, to take its rules as they are, stop the gateway, "
    "remove the folder of the last good files and start it again"
)


class Alarms:
    """One log line when a trouble begins, one when it ends, and the board's RULES_ALARM set in between."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._present: dict[str, str] = {}

    def note(self, about: str, why: str | None) -> None:
        """Say what is wrong now about something, or, with None or nothing, that it is right."""
        if (why or None) == self._present.get(about):
            return
        if why:
            self._present[about] = why
            logger().error("rules_alarm", about=about, why=why, hint=_HINT)
        else:
            logger().info("rules_alarm_over", about=about, was=self._present.pop(about))
        self._board[Slot.RULES_ALARM] = int(bool(self._present))
