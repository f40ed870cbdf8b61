"""What a worker sees of its siblings: whether one of them is ready, by what it said a moment ago."""

from pathlib import Path
from time import monotonic_ns

from gateway.metrics import Board, Slot, board_path
from gateway.siblings import Siblings


def say(folder: Path, index: int, *, ready: bool, ago_s: float = 0.0) -> None:
    board = Board(board_path(folder, index))
    board[Slot.READY] = int(ready)
    board[Slot.LOOKED_NS] = monotonic_ns() - int(ago_s * 1e9)
    board.close()


def test_a_sibling_is_ready_while_it_goes_on_saying_so(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path, 0, 3)
    assert not siblings.any_ready()
    say(tmp_path, 2, ready=True)
    assert siblings.any_ready()
    say(tmp_path, 2, ready=False)
    assert not siblings.any_ready()
    say(tmp_path, 1, ready=True, ago_s=5)  # it was stopped, or killed
    assert not siblings.any_ready()
    siblings.close()


def test_a_worker_is_no_sibling_of_its_own(tmp_path: Path) -> None:
    siblings, alone = Siblings(tmp_path, 0, 2), Siblings(tmp_path, 0, 1)
    say(tmp_path, 0, ready=True)
    assert not siblings.any_ready()
    assert not alone.any_ready()
    siblings.close()
    alone.close()
