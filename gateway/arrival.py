"""What requests wait for: like a future of asyncio, but who waits goes on at once when it comes; and who waits so.

A future has its waiters called in the next turn of the event loop, and a task is one more object with a context of its
own: for a request that waits twice, that is a sixth of its cost. So a request is a `Run`: a coroutine that begins where
it is made and goes on where the outcome that it waits for is set.

Belongs here: waiting and being told. Never here: what is waited for.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeVar

from gateway.logs import logger

T = TypeVar("T")
Callback = Callable[["Arrival[Any]"], object]
_running: Final[list["Run"]] = []
"""The run that goes on just now, and below it those in which it was made to."""
_END: Final = object()


class Arrival(Generic[T]):
    """One outcome, a value or an error, for any number of waiters. Belongs to the thread of one event loop.

    Runs and tasks can await it. Nobody has to take the outcome: an error that no one waits for is no mistake.
    """

    __slots__ = ("_callbacks", "_error", "_value", "come")

    def __init__(self) -> None:
        self._callbacks: list[Callback] = []
        self._error: Exception | None = None
        self._value: T | None = None
        self.come = False

    def arrive(self, value: T) -> None:
        """Set the outcome, unless there is one, and have those go on who wait for it."""
        if not self.come:
            self.come = True
            self._value = value
            self._call()

    def fail(self, error: Exception) -> None:
        """Set an error as the outcome, unless there is one; whoever waits has it raised."""
        if not self.come:
            self.come = True
            self._error = error
            self._call()

    def then(self, callback: Callback) -> None:
        """Call `callback` with this where the outcome is set; at once if it is."""
        if self.come:
            callback(self)
        else:
            self._callbacks.append(callback)

    def forget(self, callback: Callback) -> None:
        """Do not call it any more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for it now."""
        return bool(self._callbacks)

    def result(self) -> T:
        """Return the value, or raise the error. Only once it has come."""
        if self._error is not None:
            raise self._error
        value: T = self._value  # type: ignore[assignment]  # None only where T allows it
        return value

    def __await__(self) -> Generator[Any, None, T]:
        if not self.come:
            if _running:
                yield self  # to the run
            else:
                yield from self._future().__await__()
        return self.result()

    def _future(self) -> asyncio.Future[None]:
        """Return what a task can wait for, and cancel without ending what others wait for."""
        future = asyncio.get_running_loop().create_future()

        def come(_: object) -> None:
            if not future.done():
                future.set_result(None)

        self.then(come)
        return future

    def _call(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class Run:
    """A coroutine that is driven by what it waits for: an `Arrival`, or a future.

    It begins with `go`, where that is called. What it awaits must not ask for the current task, as `asyncio.timeout`
    does: there is none, or it is somebody else's. What it raises, but for being cancelled, is logged as a defect.
    """

    __slots__ = ("_cancelled", "_going", "_steps", "_waits")

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._steps = coroutine.__await__()
        self._waits: Any = None
        self._going = False
        self._cancelled: asyncio.CancelledError | None = None

    def go(self, _: object = None, cancelled: asyncio.CancelledError | None = None) -> None:
        """Begin, or go on; where it is `cancelled`, by having that raised where it waited."""
        self._waits = None
        self._going = True
        _running.append(self)
        try:
            # `next` has a way to say that there was none; `send` raises, which costs as much as a step.
            waits = next(self._steps, _END) if cancelled is None else self._steps.throw(cancelled)
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001 - there is nobody above who could be told
            self._broke(error)
            return
        finally:
            _running.pop()
        if waits is not _END:
            self._going = False
            self._wait_for(waits)

    def cancel(self, why: str | None = None) -> None:
        """Have `CancelledError` raised where it waits; where it runs just now, at the next place where it would."""
        cancelled = asyncio.CancelledError(why) if why is not None else asyncio.CancelledError()
        waits = self._waits
        if self._going:
            self._cancelled = cancelled
        elif isinstance(waits, Arrival):
            waits.forget(self.go)
            self.go(cancelled=cancelled)
        elif waits is not None:
            waits.cancel(why)  # calls `go` in the next turn, where awaiting it raises

    def _wait_for(self, waits: Any) -> None:
        self._waits = waits
        if self._cancelled is not None:
            cancelled, self._cancelled = self._cancelled, None
            if isinstance(waits, Arrival):
                self.go(cancelled=cancelled)
                return
            waits.cancel(*cancelled.args)
        if isinstance(waits, Arrival):
            waits.then(self.go)
        elif waits is None:  # a bare yield: let others have a turn
            asyncio.get_running_loop().call_soon(self.go)
        else:
            waits._asyncio_future_blocking = False
            waits.add_done_callback(self.go)

    def _broke(self, error: BaseException) -> None:
        if not isinstance(error, asyncio.CancelledError):
            logger().error("defect", task="request", exc_info=error)
