"""The network's file: at a path, or at an https address.

All trust hangs from this file, since it names the contracts. So an address is https, or on this machine; behind
``#sha256=`` it may name the digest of the one file that is meant. What came is kept, for a few minutes instead of
asking again, for longer where the address does not answer or nobody is to be asked. Whether its parameters are those
that the contract has, is compared when the contract is asked.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from logstore.files import written_whole
from validator.net.network_file import (
    MAX_BYTES,
    fetch_network_bytes,
    is_address,
    parse_network_bytes,
    split_pin,
)
from validator.protocol.errors import ConfigError, RemoteFault, TransientError
from validator.protocol.parameters import Network, parse_network

FRESH_S = 300.0
REMEDY = "name the network's file with --network or in LOGSTORE_NETWORK_FILE, or start a network here: make quickstart"


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network, and what is to be said of its file."""

    network: Network
    kept: Path | None = None
    """Where a copy lies, if it came from an address."""
    remark: str = ""


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
    address, digest = split_pin(url)
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()}.toml"
    kept = _read_kept(path, digest)
    if kept is not None and (digest or offline or time.time() - path.stat().st_mtime < FRESH_S):
        return NetworkFile(kept, path)
    if offline:
        raise ConfigError("network file: of this address nothing is kept, and nothing is fetched with --offline")
    try:
        data = fetch_network_bytes(address, "logstore")
        network = parse_network_bytes(address, data, digest)
    except (TransientError, RemoteFault) as error:
        if kept is None:
            raise
        return NetworkFile(kept, path, f"network file: the copy of before is used, since {error}")
    _keep(path, data)
    return NetworkFile(network, path)


def _read_kept(path: Path, digest: str) -> Network | None:
    with suppress(OSError, ConfigError, RemoteFault):
        return parse_network_bytes("the copy", path.read_bytes(), digest)
    return None


def _keep(path: Path, data: bytes) -> None:
    """A copy for later; where it cannot be written there is none."""
    with suppress(OSError), written_whole(path) as file:
        file.write(data)
