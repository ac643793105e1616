"""Where a development network that runs says so, and where whoever wants to use it looks: one small file per user.

    $LOGSTORE_STATE_DIR/devnet.json, else $XDG_STATE_HOME/logstore/devnet.json, else ~/.local/state/logstore/devnet.json

It is there as long as the network runs, names the process that writes it, and is believed only while that one lives and
the file belongs to who reads it: all trust hangs from the network's file that it names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

FILE = "devnet.json"
MAX_BYTES = 64 << 10


class RunningNetwork(msgspec.Struct, frozen=True, omit_defaults=True):
    """A network that runs on this machine. Paths are absolute."""

    pid: int
    network: str
    """The network's file."""
    key: str = ""
    """A file with the key of somebody who has coins for gas, and nothing else yet."""
    streams: tuple[str, ...] = ()
    """Ids of streams that have traffic."""
    brokers: tuple[str, ...] = ()
    """URLs, which also serve the explorer."""


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's programs of ours keep what must outlive them."""
    own = environment.get("LOGSTORE_STATE_DIR")
    if own:
        return Path(own)
    return Path(environment.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "logstore"


@contextmanager
def announced(running: RunningNetwork, environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Say that it runs, until the block ends. Of several networks the one that began last is found.

    Raises:
        OSError: the file cannot be written.
    """
    path = state_folder(environment) / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{FILE}.{os.getpid()}.part")
    data = msgspec.json.encode(running)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    os.replace(partial, path)
    try:
        yield path
    finally:
        with suppress(OSError):
            if path.read_bytes() == data:  # another network may have begun since
                path.unlink()


def find_running(environment: Mapping[str, str] = os.environ) -> RunningNetwork | None:
    """The network that runs on this machine for this user; None where there is none."""
    path = state_folder(environment) / FILE
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            running = msgspec.json.decode(file.read(MAX_BYTES), type=RunningNetwork)
        os.kill(running.pid, 0)
    except (OSError, OverflowError, msgspec.MsgspecError):
        return None
    return running if running.pid > 0 and Path(running.network).is_file() else None
