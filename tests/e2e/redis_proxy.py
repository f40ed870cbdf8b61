"""A TCP proxy in front of a rules store, which can do to its connections what networks do to them."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 65_536


class RedisProxy:
    """Forwards `port` of loopback to `target`, a port or the path of a unix socket; end it with `close`.

    `frozen_notices`: what comes from the server is held back on every connection that has subscribed to something,
    which stays open: a notice connection that is dead and does not know it. `black_hole`: nothing is forwarded either
    way, and new connections are taken and left alone. `cut` closes every connection there is.
    """

    def __init__(self, target: int | str) -> None:
        self._target = target
        self.frozen_notices = False
        self.black_hole = False
        self._flowing = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._subscribed: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._closed = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def subscribed(self) -> int:
        """How many connections have subscribed to something."""
        return len(self._subscribed)

    def flow(self, *, black_hole: bool = False, frozen_notices: bool = False) -> None:
        """Say what happens to traffic from now on; what was held back by a black hole is lost with its connection."""
        with self._flowing:
            ended = self.black_hole and not black_hole
            self.black_hole, self.frozen_notices = black_hole, frozen_notices
            self._flowing.notify_all()
        if ended:
            self.cut()

    def cut(self) -> None:
        """Close every connection, in both directions."""
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        self._closed = True
        self.flow()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._sockets.add(client)
            threading.Thread(target=self._serve, args=(client,), name="proxied", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._wait_while(lambda: self.black_hole)
        try:
            server = self._connect()
        except OSError:
            self._forget(client)
            return
        self._sockets.add(server)
        back = threading.Thread(target=self._pump, args=(server, client, client), name="proxied back", daemon=True)
        back.start()
        self._pump(client, server, client)
        back.join()
        self._forget(client)
        self._forget(server)

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(self._target)
        return server

    def _pump(self, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        try:
            while data := source.recv(_CHUNK):
                if source is client and b"SUBSCRIBE" in data.upper():
                    self._subscribed.add(client)
                self._wait_while(lambda: self._is_held(source, client))
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _is_held(self, source: socket.socket, client: socket.socket) -> bool:
        return self.black_hole or (self.frozen_notices and source is not client and client in self._subscribed)

    def _wait_while(self, held: Callable[[], bool]) -> None:
        with self._flowing:
            self._flowing.wait_for(lambda: self._closed or not held())

    def _forget(self, one: socket.socket) -> None:
        self._subscribed.discard(one)
        self._sockets.discard(one)
        one.close()
