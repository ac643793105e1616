"""Sockets whose every call ends within the deadline of the request that uses them."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore

from validator.net.http.urls import IPAddress


@dataclass(slots=True)
class Budget:
    """Until when the request that uses a connection may run; monotonic seconds."""

    until: float = 0.0

    def cap(self, timeout: float | None, error: type[httpcore.TimeoutException] = httpcore.ReadTimeout) -> float:
        """Seconds the next blocking call may take. Raises ``error`` when nothing is left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise error("deadline")
        return left if timeout is None else min(left, timeout)


class DeadlineStream(httpcore.NetworkStream):
    """A socket whose every call ends within the deadline of the request that uses it, TLS handshake included."""

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock = sock
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._sock.settimeout(self._budget.cap(timeout))
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:
            try:
                self._sock.settimeout(self._budget.cap(timeout))
                view = view[self._sock.send(view) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            self._sock.settimeout(self._budget.cap(timeout, httpcore.ConnectTimeout))
            return DeadlineStream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._budget)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, ValueError) as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            if self._sock.fileno() < 0:
                return True
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0))
        if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket):
            return self._sock
        return None


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to one checked address, whatever host the request names."""

    def __init__(self, address: IPAddress, budget: Budget) -> None:
        self._address = address
        self._budget = budget

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del host, local_address, socket_options
        try:
            left = self._budget.cap(timeout, httpcore.ConnectTimeout)
            sock = socket.create_connection((str(self._address), port), timeout=left)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return DeadlineStream(sock, self._budget)
