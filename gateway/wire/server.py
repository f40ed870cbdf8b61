"""The HTTP/1.1 server of the data port: one connection, from its first byte to its last.

Belongs here: what is read, served and written next on a connection, and when it ends. Never here: making requests of
bytes (`receiving`), what a head may say (`heads`), how a reply is written (`replies`, piece by piece `relaying`), who
is late (`deadlines`), listening (`serving`), models, versions, or paths of a protocol.

How a request passes: `data_received` keeps the bytes, and `_drive` gives them piece by piece to the receiver, which
makes turns of them. Turns are served one at a time and in order: an inference by a task that awaits the face, anything
else by one that runs the ASGI application, a message that cannot be read by its refusal. Each ends in `_finish`, which
drives on.

Whatever is refused on this level is answered once and ends the connection: what follows a message that was not
understood cannot be told apart from the rest of it, so not one byte of it is looked at.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from gateway.arrival import Run
from gateway.errors import ClientClosed, GatewayError, Overloaded, RequestError, RequestTimeout, Stopping
from gateway.messages import HUNG_UP, Answer, Flow, WireReply, WireRequest
from gateway.wire.asgi_calls import AsgiCall, defect_of
from gateway.wire.deadlines import NEVER, Patience
from gateway.wire.heads import Head
from gateway.wire.port import Port
from gateway.wire.receiving import Receiver, Turn
from gateway.wire.relaying import Relaying
from gateway.wire.replies import CONTINUE, write_reply
from gateway.wire.sending import Sender

_MOST_WAITING: Final = 16
_READ_AHEAD: Final = 256 * 1024
"""Requests, and bytes of their bodies, that may wait behind the one being served before reading stops."""


class ServerProtocol:
    """One connection. It is an `asyncio.Protocol` in all but name (without a base, compiled code is the faster), a
    `deadlines.Timed`, a `port.Connection`, and the `messages.Outlet` of its requests.
    """

    _transport: asyncio.Transport
    _receiver: Receiver
    _sender: Sender

    def __init__(self, port: Port) -> None:
        self._port = port
        self._loop = port.loop
        self._turn: Turn | None = None
        self._work: Run | asyncio.Task[None] | None = None
        self._relaying: Relaying | None = None
        self._driving = False
        self._paused = False  # reading
        self._lost = False
        self._patience = Patience(port.limits)
        self.due = NEVER

    # ── called by the transport ──────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the first head is waited for from now on."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        peer = transport.get_extra_info("peername")
        self._receiver = Receiver(self._port.limits, peer[0] if isinstance(peer, tuple) else "")
        self._sender = Sender(self._transport, self._port.limits.send_seconds, self._port.row)
        port = self._port
        port.deadlines.watch(self)
        self.due = self._loop.time() + port.limits.head_seconds
        if not port.welcome(self):
            self._turn_away()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and serve what they complete."""
        receiver = self._receiver
        if not receiver.ended:
            receiver.offer(data)
            self._drive()
        elif self._sender.ending:
            self.due = max(self.due, self._sender.linger())

    def eof_received(self) -> bool:
        """Take the end of what the caller sends for its hanging up, but answer a message that it cut off."""
        receiver = self._receiver
        if receiver.within and not receiver.ended:
            self._refuse(ClientClosed("the caller hung up before its request had arrived"))
            self._drive()
        refusing = any(turn is not None and turn.error is not None for turn in (self._turn, *receiver.turns))
        return refusing and self._transport.can_write_eof()

    def connection_lost(self, _: Exception | None) -> None:
        """Cancel what is being served, and have recorded what never will be."""
        self._lost = True
        self.due = NEVER
        port = self._port
        port.deadlines.forget(self)
        port.forget(self)
        if self._work is not None:
            self._work.cancel(HUNG_UP)
        self._sender.lose()
        receiver = self._receiver
        if receiver.head is not None:
            self._refuse(ClientClosed("the caller hung up before its request had arrived"))
        for request in [turn.request for turn in receiver.turns if turn.request is not None]:
            if port.face.is_inference(request.path):
                request.refused = request.refused or ClientClosed("the caller hung up before its turn had come")
                port.farewells.start("hung up", _discard(port.face.handle(request)))
        receiver.turns.clear()
        receiver.let_go()

    def pause_writing(self) -> None:
        """Start nothing more until the caller has taken its replies."""
        self.due = self._sender.pause()
        if self._relaying is not None:
            self._relaying.flow.pause()

    def resume_writing(self) -> None:
        """Go on."""
        self.due = self._sender.resume()
        if self._relaying is not None:
            self._relaying.flow.resume()
        self._drive()

    # ── reading and starting ─────────────────────────────────────────────────────────────────────────────────────

    def _drive(self) -> None:
        """Do all that can be done now: start the next turn, or read on."""
        if self._driving:
            return  # a turn that ended at once, without waiting
        self._driving = True
        receiver = self._receiver
        turns = receiver.turns
        while True:
            if self._turn is None and turns and not self._sender.stuck and not self._transport.is_closing():
                self._start(turns.popleft())
            elif receiver.waiting and ((self._turn is None and not turns) or self._has_room()):
                self._read_on()
            else:
                break
        self._driving = False
        if self._turn is None or receiver.waiting or self._paused:
            self._settle()

    def _has_room(self) -> bool:
        """Tell whether more may be read: a caller that sends ahead must not fill the memory with what has to wait."""
        receiver = self._receiver
        if len(receiver.turns) >= _MOST_WAITING:
            return False
        waiting = sum(len(turn.request.body) for turn in receiver.turns if turn.request is not None)
        return waiting + receiver.arrived <= _READ_AHEAD

    def _read_on(self) -> None:
        try:
            self._receiver.read_on()
        except RequestError as error:
            self._refuse(error)

    def _refuse(self, error: RequestError) -> None:
        self._receiver.refuse(error, self._port.face.is_inference)

    def _start(self, turn: Turn) -> None:
        self._turn, self.due = turn, NEVER
        port, request = self._port, turn.request
        if request is None:
            assert turn.error is not None
            self._stop_short(turn, turn.error)
            return
        if turn.error is not None or port.face.is_inference(request.path):
            request.outlet = self
            run = self._work = Run(self._serve(turn, request))
            run.go()
        else:
            # Applications may ask for their task, and set variables that no other request should see.
            self._work = self._loop.create_task(
                self._run_application(turn, request), name="request", context=port.context.copy()
            )

    def _settle(self) -> None:
        """Stop or go on reading, and see what is waited for and until when."""
        if self._sender.ending or self._transport.is_closing():
            return
        receiver = self._receiver
        if receiver.waiting:
            if not self._paused:
                self._paused = True
                self._transport.pause_reading()
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._turn is not None or self._sender.stuck:
            return
        self.due = self._patience.until(receiver, self._loop.time())
        head = receiver.head
        if head is not None and head.expects and not receiver.arrived:
            head.expects = False
            self._sender.write(CONTINUE)

    # ── serving and replying ─────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, turn: Turn, request: WireRequest) -> None:
        """Have the face answer. Ends only after the turn has, or when the caller is gone."""
        try:
            reply = await self._port.face.handle(request)
            written = self._written(turn, reply) if self._relaying is None else b""
        except asyncio.CancelledError:
            self._stop_short(turn, Stopping("the gateway stopped before the request had ended; send it again"))
            return
        except Exception as defect:  # noqa: BLE001 - a defect is one failed request, never a connection that hangs
            self._stop_short(turn, defect_of(defect))
            return
        finally:
            request.outlet = None  # who keeps the request does not keep the connection
        if self._relaying is None:
            self._send(turn, written)
        else:
            self._end_relaying(turn, broken=reply.broken)
        if reply.after_sent is not None:
            reply.after_sent()

    async def _run_application(self, turn: Turn, request: WireRequest) -> None:
        """Have the application answer, as `_serve` does."""
        port = self._port
        if port.draining:
            self._say_close_if_last(turn)
        call = AsgiCall(
            turn.head,
            request.body,
            self._sender,
            date=lambda: port.deadlines.date,
            client=self._address("peername"),
            server=self._address("sockname"),
            scheme=port.scheme,
        )
        error = await call.run(port.application)
        if error is None:
            self._finish(turn)
        elif call.begun:
            self.abort()
        else:
            self._stop_short(turn, error)

    def _address(self, which: str) -> tuple[str, int] | None:
        address = self._transport.get_extra_info(which)
        return (address[0], address[1]) if isinstance(address, tuple) else None

    def _stop_short(self, turn: Turn, error: GatewayError) -> None:
        """Answer a request that could not be served to its end, if anybody is left to read the answer."""
        if self._relaying is not None:
            self._end_relaying(turn, broken=True)
        elif not self._lost:
            turn.head.keep_alive = False
            self._send(turn, self._written(turn, self._port.face.refuse(error)))

    def _written(self, turn: Turn, reply: WireReply) -> bytes:
        """Return a reply as bytes. Raises `ValueError` when it cannot be written."""
        if self._port.draining:
            self._say_close_if_last(turn)
        return write_reply(reply, turn.head, self._port.deadlines.date)

    def _send(self, turn: Turn, written: bytes) -> None:
        self._sender.send(written)
        self._finish(turn)

    def begin(self, answer: Answer, flow: Flow) -> Callable[[bytes], None]:
        """Send the head of the present turn's reply, whose body follows as it comes; see `messages.Outlet`."""
        turn, port = self._turn, self._port
        assert turn is not None
        if port.draining:
            self._say_close_if_last(turn)
        relaying = Relaying(self._sender, flow, port.face.reply(answer), turn.head, port.deadlines.date)
        self._relaying = relaying
        relaying.begin()
        return relaying.send

    def _end_relaying(self, turn: Turn, *, broken: bool) -> None:
        relaying, self._relaying = self._relaying, None
        assert relaying is not None
        if broken:
            self._turn = self._work = None
            self.due = relaying.break_off()
        else:
            relaying.end()
            self._finish(turn)

    def _finish(self, turn: Turn) -> None:
        self._turn = self._work = None
        if self._port.draining:
            self._say_close_if_last(turn)
        if turn.head.keep_alive:
            self._drive()
        elif not self._transport.is_closing():
            self._end(cut_off=turn.error is not None)

    def _turn_away(self) -> None:
        """Answer a connection beyond `limits.max_connections` whatever it may ask, and end it."""
        head = Head("", "1.1", b"", (), {}, "")
        head.keep_alive = False
        reply = self._port.face.refuse(Overloaded("too many connections are open; connect again a little later"))
        self._sender.write(write_reply(reply, head, self._port.deadlines.date))
        self._end(cut_off=True)

    def _say_close_if_last(self, turn: Turn) -> None:
        if not self._has_more():
            turn.head.keep_alive = False

    def _has_more(self) -> bool:
        """Tell whether anything has come beyond the present turn."""
        receiver = self._receiver
        return bool(receiver.turns or receiver.waiting) or receiver.within

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, cut_off: bool) -> None:
        """End with the reply that has just been written; what still comes is thrown away."""
        self._receiver.end()
        self._receiver.turns.clear()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self.due = self._sender.end(cut_off)

    def close_when_idle(self) -> None:
        """Close at once if nothing is being received or served; otherwise the present reply is the last."""
        if self._sender.ending or (self._turn is None and not self._has_more()):
            self._sender.leave()
            self._transport.close()

    def stop(self) -> None:
        """End what is being served, which is answered with 503, and then the connection."""
        if self._work is not None:
            self._work.cancel()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""
        self._transport.abort()

    def overdue(self) -> None:
        """Close, with an answer where a request has begun, unless the caller is slow to take what it gets."""
        receiver, sender = self._receiver, self._sender
        if more_time := sender.more_time():
            self.due = more_time
        elif sender.ending or sender.stuck:
            self.abort()
        elif receiver.within and not receiver.ended:
            what = "body" if receiver.head is not None else "head"
            self._refuse(RequestTimeout(f"the {what} of the request came too slowly; send it faster"))
            self._drive()
        else:
            self.due = sender.close()


async def _discard(answering: Coroutine[Any, Any, WireReply]) -> None:
    """Have a request recorded whose reply nobody will read."""
    await answering
