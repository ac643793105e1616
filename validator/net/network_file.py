"""A network's file from an address: over https or from this machine, bounded, pinned where a digest is named.

All trust hangs from this file, since it names the contracts. Behind ``#sha256=`` an address may name the digest of the
one file that is meant.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from validator.protocol.errors import ConfigError, RemoteFault, TransientError
from validator.protocol.parameters import Network, parse_network

MAX_BYTES = 1 << 20
DEADLINE_S = 20.0
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_PIN = re.compile("sha256=([0-9a-f]{64})")


def is_address(source: str | Path) -> bool:
    return isinstance(source, str) and source.lower().startswith(("https://", "http://"))


def split_pin(url: str) -> tuple[str, str]:
    """The address and the digest behind it, "" for none. Raises ConfigError."""
    address, _, fragment = url.partition("#")
    pin = _PIN.fullmatch(fragment)
    if fragment and pin is None:
        raise ConfigError("network file: behind # only sha256= and 64 hex digits are known", field="network")
    return address, pin[1] if pin else ""


def fetch_network_bytes(address: str, user_agent: str) -> bytes:
    """What lies at an address, unread.

    Raises:
        ConfigError: no such address can be meant.
        TransientError, RemoteFault: it does not answer, or with something else than a file.
    """
    from validator.net.http.client import BoundedClient  # a reader of a file on disk needs none of it
    from validator.net.http.urls import EVERYWHERE, read_operator_url

    try:
        parsed = read_operator_url(address)
    except ValueError as error:
        raise ConfigError(f"network file: {error}", field="network") from error
    if parsed.origin.scheme != "https" and parsed.origin.host not in THIS_MACHINE:
        raise ConfigError("network file: only https, since all trust hangs from this file", field="network")
    client = BoundedClient(allow_nets=EVERYWHERE, user_agent=user_agent)
    try:
        answer = client.fetch(
            "GET",
            parsed.origin,
            parsed.target or "/",
            max_bytes=MAX_BYTES,
            deadline_s=DEADLINE_S,
            headers=parsed.headers,
        )
    finally:
        client.close()
    if answer.status != 200:
        kind = TransientError if answer.status in (408, 429) or answer.status >= 500 else RemoteFault
        raise kind(f"{parsed.origin}: HTTP {answer.status} for the network's file", status=answer.status)
    return answer.body


def parse_network_bytes(address: str, data: bytes, digest: str) -> Network:
    """``address``: where it came from, of which only the host is said.

    Raises:
        RemoteFault: not the file that is meant, or none.
    """
    where = address.partition("://")[2].partition("/")[0].rpartition("@")[2] or address
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise RemoteFault(f"{where}: a file of SHA-256 {hashlib.sha256(data).hexdigest()}, not the one that is named")
    try:
        return parse_network(data.decode())
    except (UnicodeDecodeError, ConfigError) as error:
        raise RemoteFault(f"{where}: no network's file: {error}") from error
