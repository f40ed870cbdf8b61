"""The other workers of a gateway, as one of them sees them: by their boards.

Belongs here: what a worker asks about its siblings. Never here: changing anything of theirs.
"""

from pathlib import Path
from time import monotonic_ns
from typing import Final

from gateway.metrics import Board, Slot, board_path

_FRESH_NS: Final = 1_000_000_000
"""How long what a worker says of itself holds; it says so fifty times a second."""


class Siblings:
    """The siblings of worker `index` of `workers`; their boards are opened, and to be closed."""

    def __init__(self, run_folder: Path, index: int, workers: int) -> None:
        self._boards = [Board(board_path(run_folder, other)) for other in range(workers) if other != index]

    def any_ready(self) -> bool:
        """Tell whether one of them was ready within the last second: one that is killed or stopped is no more."""
        now_ns = monotonic_ns()
        return any(board[Slot.READY] and now_ns - board[Slot.LOOKED_NS] < _FRESH_NS for board in self._boards)

    def close(self) -> None:
        """Close the boards."""
        for board in self._boards:
            board.close()
