"""One answer on its way from a backend to its caller, piece by piece: what passes, and what its record will say of it.

A piece is sent on where it comes, in the same turn of the event loop, and nothing is put by: what the caller does not
take makes the backend wait. The SHA-256 of all that was sent on is the one that the body would have had in one piece.

Belongs here: one such body. Never here: sockets, framing, choosing versions, writing records.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from time import monotonic_ns

from msgspec.structs import replace

from gateway.capture import capture_passed
from gateway.errors import ClientClosed, DeadlineExceeded
from gateway.messages import Begun
from gateway.record import Attempt, Record
from routing import Capture


class Stream:
    """A streamed answer, whose head has been sent. `complete` once all of its body has been sent on, too."""

    __slots__ = ("_beginning", "_begun", "_digest", "_head_us", "_policy", "_room", "_send", "_size", "complete")

    def __init__(self, begun: Begun, head_us: int, policy: Capture, send: Callable[[bytes], None]) -> None:
        """`head_us` is what versions have taken until now, `send` sends a piece to the caller."""
        self._begun = begun
        self._head_us = head_us
        self._policy = policy
        self._send = send
        self._size = 0
        self._digest = sha256()
        self._beginning = bytearray()
        self._room = policy.max_bytes if policy.response == "full" else 0
        self.complete = False

    async def run(self) -> None:
        """Send on what comes until it has ended. Raises as `messages.Relay`."""
        flow = self._begun.flow
        try:
            await flow.start(self._take)
        except DeadlineExceeded as late:
            if flow.paused:  # which is not for the version to answer for
                why = f"the caller took its answer so slowly that its time was over after {self._size} bytes"
                raise ClientClosed(why) from None
            why = f"the answer of {late.backend} had not come to its end in time, only {self._size} bytes of it"
            raise DeadlineExceeded(why, late.backend) from None
        except asyncio.CancelledError:
            flow.close()
            raise
        self.complete = True

    def _take(self, piece: bytes) -> None:
        self._send(piece)
        self._size += len(piece)
        self._digest.update(piece)
        if self._room > 0:
            kept = piece[: self._room]
            self._beginning += kept
            self._room -= len(kept)

    def given_up(self) -> Attempt:
        """Return the try of which this came, when nobody waits for its end any more."""
        begun = self._begun
        took_us = (monotonic_ns() - begun.started_ns) // 1000
        return Attempt(begun.version, begun.backend, took_us, begun.rendered.status)

    def note(self, record: Record, salt: bytes) -> tuple[Record, bytes]:
        """Return the record of the request with what became of its answer, and the part of the response.

        `salt` is used for nothing else. To be called once, when all is over: caller and body are let go of.
        """
        beginning = bytes(self._beginning)
        self._beginning.clear()
        del self._send
        response, part = capture_passed(beginning, self._size, self._digest.digest(), self._policy, salt)
        streamed = replace(
            record,
            status=self._begun.rendered.status,
            response=response,
            streamed="complete" if self.complete else "broken_off",
            head_us=self._head_us,
        )
        return streamed, part
