"""One look-up of a host, bounded in time; every address it answers is checked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from validator.net.http.urls import IPAddress, IPNetwork, ParsedUrl, literal_address, require_allowed
from validator.protocol.errors import TransientError

Resolver: TypeAlias = Callable[[str, int], Sequence[str]]
"""(host, port) to the texts of all its addresses; raises OSError."""

MAX_ADDRESSES = 16
_MAX_LOOKUPS = 16


def resolve(
    url: ParsedUrl,
    *,
    allow_nets: Sequence[IPNetwork] = (),
    timeout_s: float = 5.0,
    resolver: Resolver | None = None,
) -> tuple[IPAddress, ...]:
    """Look the host up once; the answer's addresses in order, every one of them checked.

    Raises:
        MalformedInput: one of the addresses is neither global unicast nor allowed: the whole name is refused.
        TransientError: the name has no address now, or the look-up took too long.
    """
    literal = literal_address(url.host)
    if literal is not None:
        require_allowed(literal, url.host, allow_nets)
        return (literal,)
    texts = _look_up(url.host, url.port, timeout_s, resolver or _system_resolver)
    addresses: list[IPAddress] = []
    for text in texts[:MAX_ADDRESSES]:
        address = literal_address(text)
        if address is None:
            raise TransientError(f"{url.host}: the look-up answered {text!r}", host=url.host)
        require_allowed(address, url.host, allow_nets)
        if address not in addresses:
            addresses.append(address)
    if not addresses:
        raise TransientError(f"{url.host}: no address", host=url.host)
    return tuple(addresses)


def _system_resolver(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(item[4][0]) for item in found]


_lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)


def _look_up(host: str, port: int, timeout_s: float, resolver: Resolver) -> list[str]:
    """getaddrinfo knows no time limit, so it runs in a thread of its own that is left behind when it hangs."""
    if not _lookups.acquire(timeout=timeout_s):
        raise TransientError(f"{host}: too many look-ups hang", host=host)
    answer: list[list[str] | Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            answer.append(list(resolver(host, port)))
        except Exception as error:
            answer.append(error)
        finally:
            _lookups.release()
            done.set()

    threading.Thread(target=run, name="look-up", daemon=True).start()
    if not done.wait(timeout_s):
        raise TransientError(f"{host}: look-up took longer than {timeout_s:g} s", host=host)
    first = answer[0]
    if isinstance(first, OSError | UnicodeError):
        raise TransientError(f"{host}: look-up failed: {first}", host=host) from first
    if isinstance(first, Exception):
        raise first
    return first
