from __future__ import annotations

import ipaddress
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from validator.net.http.listening import listener_config


async def small(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def large(scope: Any, receive: Any, send: Any) -> None:
    size = 64 << 20
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": bytes(size)})


async def never(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def listening(app: Any = small, **options: Any) -> Iterator[int]:
    server = uvicorn.Server(listener_config(app, "127.0.0.1", 0, **options))
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.settimeout(10)
    return connection


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"ok"):
        piece = connection.recv(4096)
        if not piece:
            break
        answer += piece
    return answer


def drain(connection: socket.socket) -> int:
    """Bytes that arrive until the other side ends the connection; TimeoutError if it does not."""
    received = 0
    try:
        while piece := connection.recv(1 << 20):
            received += len(piece)
    except ConnectionError:
        return received
    return received


def test_a_connection_serves_request_after_request_beyond_the_time_for_one() -> None:
    with listening(head_s=1.5, exchange_s=1.5) as port, connect(port) as connection:
        for _ in range(6):
            assert ask(connection).endswith(b"ok")
            time.sleep(0.3)


def test_an_idle_connection_outlives_the_time_for_a_head() -> None:
    with listening(head_s=1) as port, connect(port) as connection:
        assert ask(connection).endswith(b"ok")
        time.sleep(1.1)
        assert ask(connection).endswith(b"ok")


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Word: "])
def test_a_head_that_does_not_end_ends_the_connection(start: bytes) -> None:
    with listening(head_s=0.2) as port, connect(port) as connection:
        connection.sendall(start)
        assert drain(connection) == 0


def test_a_head_that_drips_after_a_good_request_ends_the_connection() -> None:
    with listening(head_s=1) as port, connect(port) as connection:
        assert ask(connection).endswith(b"ok")
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(b"G")
                time.sleep(0.05)


def test_a_head_beyond_16_kib_is_refused() -> None:
    with listening() as port, connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Word: " + b"a" * (70 << 10))
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400")


def test_an_answer_that_nobody_reads_ends_the_connection() -> None:
    with listening(large, exchange_s=0.3) as port, connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        ended = select.poll()
        ended.register(connection, 0)  # of its end alone, whatever there is to read
        assert ended.poll(10_000)
        assert drain(connection) < 64 << 20


def test_an_exchange_that_never_ends_is_ended() -> None:
    with listening(never, exchange_s=0.2) as port, connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert drain(connection) == 0


def test_connections_beyond_the_limit_are_closed_and_the_others_served() -> None:
    with listening(connections=3, allow_nets=[ipaddress.ip_network("127.0.0.0/8")]) as port:
        held = [connect(port) for _ in range(3)]
        assert all(ask(connection).endswith(b"ok") for connection in held)
        with connect(port) as fourth:
            assert drain(fourth) == 0
        assert all(ask(connection).endswith(b"ok") for connection in held)
        for connection in held:
            connection.close()


def test_one_address_cannot_take_all_connections_unless_its_network_is_allowed() -> None:
    with listening(connections_per_address=2) as port:
        held = [connect(port) for _ in range(2)]
        assert all(ask(connection).endswith(b"ok") for connection in held)
        with connect(port) as third:
            assert drain(third) == 0
        for connection in held:
            connection.close()
    with listening(connections_per_address=2, allow_nets=[ipaddress.ip_network("127.0.0.0/8")]) as port:
        held = [connect(port) for _ in range(5)]
        assert all(ask(connection).endswith(b"ok") for connection in held)
        for connection in held:
            connection.close()
