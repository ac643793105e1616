"""An HTTP server on loopback that answers with whatever bytes a test wants, at the pace it wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = Callable[[bytes, socket.socket], None]
"""Gets the request's head and the connection; the connection is closed when it returns."""


@contextmanager
def hostile_server(answer: Answer) -> Iterator[str]:
    """URL of a server that answers each connection's first request with ``answer``."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    stopping = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    head += piece
                answer(head, connection)
            except OSError:
                return  # the client has had enough, which is what these tests are about

    def accept() -> None:
        while not stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopping.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def http(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole HTTP/1.1 answer; ``length`` announces another length than the body has."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def fixed(whole: bytes) -> Answer:
    """Always the same answer."""
    return lambda _head, connection: connection.sendall(whole)
