"""Whom processes of this machine talk to, watched from outside."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

TABLES = ("tcp", "tcp6", "udp", "udp6")
PAUSE_S = 0.05


def _address(text: str) -> IPv4Address | IPv6Address:
    """As /proc/net writes it: words of four bytes in the machine's order."""
    words = bytes.fromhex(text)
    address = ip_address(b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4)))
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _inodes(pids: Sequence[int]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(entry.path)
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
    return found


def remote_addresses(pids: Sequence[int]) -> set[IPv4Address | IPv6Address]:
    """Every address that a socket of these processes is connected to, or tries to be."""
    inodes = _inodes(pids)
    found = set()
    for table in TABLES:
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes:
                found.add(_address(words[2].split(":")[0]))
    return {address for address in found if not address.is_unspecified}


@contextlib.contextmanager
def watching(pids: Callable[[], Sequence[int]]) -> Iterator[set[IPv4Address | IPv6Address]]:
    """Collect remote addresses until the end of the block."""
    seen: set[IPv4Address | IPv6Address] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PAUSE_S):
            seen.update(remote_addresses(pids()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(10)
