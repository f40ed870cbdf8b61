"""A TCP proxy in front of PostgreSQL that can cut a connection at the worst moment: around its COMMIT."""

import socket
import threading
from contextlib import suppress
from typing import Literal

_CHUNK = 65_536
_COMMIT = b"COMMIT\0"
Trick = Literal["cut before", "cut after", "hold"]


class PostgresProxy:
    """Forwards `port` of loopback to a server's port; end it with `close`.

    `next_commit` says what becomes of the next COMMIT: with `cut before` it never reaches the server, with `cut after`
    its answer never reaches the client, and in both cases the connection is closed on both sides. With `hold` the
    client is cut off while the COMMIT is on its way; it reaches the server at `release`.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._trick: Trick | None = None
        self.played = threading.Event()
        """Set when what `next_commit` asked for has happened."""
        self._released = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._serving: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._accepting.start()

    def next_commit(self, trick: Trick) -> None:
        """Play a trick on the next COMMIT of any connection."""
        self.played.clear()
        self._released.clear()
        self._trick = trick

    def release(self) -> None:
        """Let the COMMIT that is held reach the server."""
        self._released.set()

    def close(self) -> None:
        """Close everything."""
        self._released.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        for one in list(self._sockets):
            _shut(one)
        for serving in self._serving:
            serving.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            self._serving.append(threading.Thread(target=self._forth, args=(client, server), daemon=True))
            self._serving[-1].start()

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._back, args=(server, client), daemon=True)
        back.start()
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                if self._trick is not None and _COMMIT in data:
                    self._play(data, client, server)
                    break
                server.sendall(data)
        _shut(client)
        _shut(server)
        back.join()
        self._sockets -= {client, server}
        client.close()
        server.close()

    def _play(self, data: bytes, client: socket.socket, server: socket.socket) -> None:
        trick, self._trick = self._trick, None
        # The client hears no more from now on, also not what the server answers.
        _shut(client)
        if trick == "hold":
            self.played.set()
            self._released.wait()
        if trick != "cut before":
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            while server.recv(_CHUNK):  # until the server has done it and seen the end
                pass
        self.played.set()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                client.sendall(data)
        _shut(client)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
