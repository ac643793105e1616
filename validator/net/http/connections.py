"""Open connections of a client: pinned to the address that was checked, reused, and counted per address."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import certifi
import httpcore

from validator.net.http.deadline import Budget, PinnedBackend
from validator.net.http.urls import IPAddress, IPNetwork, is_allowed_net
from validator.protocol.errors import TransientError

MAX_CONNECTIONS_PER_PORT = 2
MAX_CONNECTIONS_PER_ADDRESS = 8
IDLE_S = 15.0


@dataclass(eq=False, slots=True)
class Connection:
    """One connection, used by one request at a time."""

    base: tuple[str, str, int]
    address: IPAddress
    budget: Budget
    http: httpcore.HTTPConnection
    used: bool = False
    idle_since: float = 0.0

    @property
    def place(self) -> tuple[IPAddress, int]:
        return (self.address, self.base[2])


class Connections:
    """Open connections of a client: reused while fresh, and counted per (address, port) and per address."""

    def __init__(self, ssl_context: ssl.SSLContext | None, allow_nets: Sequence[IPNetwork], per_port: int) -> None:
        self._ssl = ssl_context
        self._per_port = per_port
        self._allow_nets = allow_nets
        self._change = threading.Condition()
        self._open: list[Connection] = []
        self._idle: list[Connection] = []

    def acquire_idle(self, base: tuple[str, str, int]) -> Connection | None:
        """An idle connection to the same scheme, name and port that is still good."""
        with self._change:
            return self._find_idle(base)

    def open(self, base: tuple[str, str, int], address: IPAddress, until: float, *, fresh: bool = False) -> Connection:
        """Count a new connection in, waiting for a free place; it connects with its first request.

        While waiting, an idle one to the same base will do, unless ``fresh``.

        Raises:
            TransientError: no place became free in time.
        """
        with self._change:
            while True:
                idle = None if fresh else self._find_idle(base)
                if idle is not None:
                    return idle
                if self._has_room(address, base[2]):
                    break
                left = until - time.monotonic()
                if left <= 0:
                    raise TransientError(f"{address}: all connections to this address are in use", address=str(address))
                self._change.wait(left)
            if self._ssl is None and base[0] == "https":
                self._ssl = trust()  # the authorities' file takes 0.1 s to read, which http needs not wait for
            budget = Budget(until)
            http = httpcore.HTTPConnection(
                httpcore.Origin(base[0].encode(), host_bytes(base[1]), base[2]),
                ssl_context=self._ssl,
                network_backend=PinnedBackend(address, budget),
            )
            connection = Connection(base, address, budget, http)
            self._open.append(connection)
            return connection

    def _find_idle(self, base: tuple[str, str, int]) -> Connection | None:
        self._sweep()
        for connection in reversed(self._idle):
            if connection.base == base:
                self._idle.remove(connection)
                return connection
        return None

    def give_back(self, connection: Connection) -> None:
        with self._change:
            if connection.http.is_idle():
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                self._change.notify_all()
                return
        self.discard(connection)

    def discard(self, connection: Connection) -> None:
        connection.http.close()
        with self._change:
            if connection in self._open:
                self._open.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            for connection in list(self._idle):
                self._drop(connection)

    def _has_room(self, address: IPAddress, port: int) -> bool:
        while True:
            at_port = [c for c in self._open if c.place == (address, port)]
            at_address = [c for c in self._open if c.address == address]
            free_of_limit = is_allowed_net(address, self._allow_nets)
            crowd = at_port if len(at_port) >= self._per_port else []
            if not crowd and not free_of_limit and len(at_address) >= MAX_CONNECTIONS_PER_ADDRESS:
                crowd = at_address
            if not crowd:
                return True
            spare = next((c for c in crowd if c in self._idle), None)
            if spare is None:
                return False
            self._drop(spare)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._idle):
            if now - connection.idle_since > IDLE_S or connection.http.has_expired():
                self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        connection.http.close()
        self._idle.remove(connection)
        self._open.remove(connection)
        self._change.notify_all()


def trust(extra: Path | None = None) -> ssl.SSLContext:
    """TLS for a client: the public authorities, and the certificates of a PEM file beside them.

    Raises:
        OSError: the file cannot be read or holds none.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    if extra is not None:
        context.load_verify_locations(cafile=extra)
    return context


def host_bytes(host: str) -> bytes:
    return (f"[{host}]" if ":" in host else host).encode()
