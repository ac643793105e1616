"""What a listener allows a connection before any of our code sees a request: number, size of the head, time.

uvicorn bounds none of these by itself: a connection that sends nothing, or one byte of its head a minute, or that
never reads its answer, stays for ever.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from validator.net.http.urls import IPNetwork, is_allowed_net
from validator.protocol.errors import ConfigError

CONNECTIONS = 100
CONNECTIONS_PER_ADDRESS = 20
HEAD_BYTES = 16 << 10
HEAD_S = 10.0
EXCHANGE_S = 180.0
"""From a request's head to the last byte of its answer."""
GRACEFUL_S = 10
"""What answers under way have left when the process is told to end."""
KEEP_ALIVE_S = 20
"""Longer than our clients keep an idle connection, so that they never send into one that is being closed."""
BACKLOG = 512
"""Connections that wait to be accepted."""


def listen(fd: int | None, host: str, port: int, variable: str) -> socket.socket:
    """A listening socket, inherited or new. Raises ConfigError, which names the setting."""
    if fd is not None:
        return socket.socket(fileno=fd)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"{variable}: cannot listen on {host}:{port}: {error.strerror}", field=variable) from error
    listener.listen(BACKLOG)
    return listener


def listener_config(
    app: Any,
    host: str,
    port: int,
    *,
    allow_nets: Sequence[IPNetwork] = (),
    connections: int = CONNECTIONS,
    connections_per_address: int = CONNECTIONS_PER_ADDRESS,
    head_s: float = HEAD_S,
    exchange_s: float = EXCHANGE_S,
    streams: bool = False,
    graceful_s: int = GRACEFUL_S,
) -> uvicorn.Config:
    """Configuration of one listener. Addresses in ``allow_nets`` are exempt from the limit per address, since a
    terminator or a whole committee may sit behind one of them. ``streams``: an answer may take for ever, while its
    reader reads; ``exchange_s`` is then how long it may stall."""

    class Protocol(StreamingProtocol if streams else GuardedProtocol):  # type: ignore[misc]
        pass

    Protocol.nets = tuple(allow_nets)
    Protocol.most, Protocol.most_per_address = connections, connections_per_address
    Protocol.head_s, Protocol.exchange_s = head_s, exchange_s
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        log_config=None,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=graceful_s,
    )


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol with a timer: so long for a head, so long for the whole exchange."""

    nets: tuple[IPNetwork, ...] = ()
    most = CONNECTIONS
    most_per_address = CONNECTIONS_PER_ADDRESS
    head_s = HEAD_S
    exchange_s = EXCHANGE_S
    _timer: asyncio.TimerHandle | None = None
    _has_partial_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_too_many():
            transport.abort()
            return
        self._start(self.head_s)

    def data_received(self, data: bytes) -> None:
        before = self._is_waiting()
        if before and not self._has_partial_head:
            self._has_partial_head = True
            self._start(self.head_s)
        super().data_received(data)
        if before and not self._is_waiting():
            self._start(self.exchange_s)

    def on_response_complete(self) -> None:
        self._stop()
        self._has_partial_head = False
        super().on_response_complete()
        if not self._is_waiting() or self.transport.get_write_buffer_size():
            self._start(self.exchange_s)  # the next request was already here, or the answer is still on its way out

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _is_waiting(self) -> bool:
        """Between requests: no head has arrived that is still to be answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _is_too_many(self) -> bool:
        if len(self.connections) > self.most:
            return True
        mine = _host(self)
        if mine is None or is_allowed_net(mine, self.nets):
            return False
        return sum(_host(other) == mine for other in self.connections) > self.most_per_address

    def _start(self, seconds: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_waiting() and not self._has_partial_head and not self.transport.get_write_buffer_size():
            return  # the answer went out in time; idle connections are uvicorn's to close
        sock = self.transport.get_extra_info("socket")
        if sock is not None:  # reset at once, or the kernel keeps what it could not send
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class StreamingProtocol(GuardedProtocol):
    """The same for long answers: the timer looks whether the reader has read anything since it last looked.

    An answer that waits for the broker is the broker's to end; a request whose body dribbles is ended as before.
    """

    _moved = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self._moved = True

    def _give_up(self) -> None:
        cycle: Any = self.cycle
        waits_for_us = cycle is not None and cycle.response_started and not self.transport.get_write_buffer_size()
        if not self._is_waiting() and (waits_for_us or self._moved):
            self._moved = False
            self._start(self.exchange_s)
            return
        super()._give_up()


def _host(protocol: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    client = protocol.client
    try:
        return ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return None
