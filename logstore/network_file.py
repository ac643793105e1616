"""The network's file: at a path, or at an https address.

All trust hangs from this file, since it names the contracts. So an address is https, or on this machine; behind
``#sha256=`` it may name the digest of the one file that is meant. What came is kept, for a few minutes instead of
asking again, for longer where the address does not answer or nobody is to be asked. Whether its parameters are those
that the contract has, is compared when the contract is asked.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from logstore.files import written_whole
from validator.protocol.errors import ConfigError, RemoteFault, TransientError
from validator.protocol.parameters import Network, parse_network

MAX_BYTES = 1 << 20
FRESH_S = 300.0
DEADLINE_S = 20.0
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
REMEDY = "name the network's file with --network, or in LOGSTORE_NETWORK_FILE"
_PIN = re.compile("sha256=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network, and what is to be said of its file."""

    network: Network
    kept: Path | None = None
    """Where a copy lies, if it came from an address."""
    remark: str = ""


def is_address(source: str | Path) -> bool:
    return isinstance(source, str) and source.lower().startswith(("https://", "http://"))


def load_network_file(source: str | Path, folder: Path, *, offline: bool = False) -> NetworkFile:
    """From a path, or from an address, with copies kept in ``folder``.

    Raises:
        ConfigError: no such file, an address that is none, or what lies there is no network's file.
        TransientError, RemoteFault: the address does not answer, or with something else, and no copy is kept.
    """
    if is_address(source):
        return _load_from_address(str(source), folder, offline)
    try:
        with Path(source).open("rb") as opened:
            text = opened.read(MAX_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"network file {source}: {error.strerror}; {REMEDY}", field="network") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"network file {source}: not UTF-8", field="network") from error
    return NetworkFile(parse_network(text))


def _load_from_address(url: str, folder: Path, offline: bool) -> NetworkFile:
    address, _, fragment = url.partition("#")
    pin = _PIN.fullmatch(fragment)
    if fragment and pin is None:
        raise ConfigError("network file: behind # only sha256= and 64 hex digits are known", field="network")
    digest = pin[1] if pin else ""
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()}.toml"
    kept = _read_kept(path, digest)
    if kept is not None and (digest or offline or time.time() - path.stat().st_mtime < FRESH_S):
        return NetworkFile(kept, path)
    if offline:
        raise ConfigError("network file: of this address nothing is kept, and nothing is fetched with --offline")
    try:
        data = _fetch(address)
        network = _parse(address, data, digest)
    except (TransientError, RemoteFault) as error:
        if kept is None:
            raise
        return NetworkFile(kept, path, f"network file: the copy of before is used, since {error}")
    _keep(path, data)
    return NetworkFile(network, path)


def _read_kept(path: Path, digest: str) -> Network | None:
    with suppress(OSError, ConfigError, RemoteFault):
        return _parse("the copy", path.read_bytes(), digest)
    return None


def _fetch(address: str) -> bytes:
    from validator.net.http.client import BoundedClient
    from validator.net.http.urls import EVERYWHERE, read_operator_url

    try:
        parsed = read_operator_url(address)
    except ValueError as error:
        raise ConfigError(f"network file: {error}", field="network") from error
    if parsed.origin.scheme != "https" and parsed.origin.host not in THIS_MACHINE:
        raise ConfigError("network file: only https, since all trust hangs from this file", field="network")
    client = BoundedClient(allow_nets=EVERYWHERE, user_agent="logstore")
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


def _parse(address: str, data: bytes, digest: str) -> Network:
    """Raises RemoteFault: not the file that is meant, or none."""
    where = address.partition("://")[2].partition("/")[0].rpartition("@")[2] or address
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise RemoteFault(f"{where}: a file of SHA-256 {hashlib.sha256(data).hexdigest()}, not the one that is named")
    try:
        return parse_network(data.decode())
    except (UnicodeDecodeError, ConfigError) as error:
        raise RemoteFault(f"{where}: no network's file: {error}") from error


def _keep(path: Path, data: bytes) -> None:
    """A copy for later; where it cannot be written there is none."""
    with suppress(OSError), written_whole(path) as file:
        file.write(data)
