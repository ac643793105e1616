"""Where a publisher's message chains stand: kept in a small file, so that a program that starts again goes on.

    <state folder>/publish/<chain id>-<ReportManager>/<address>-<n>.json
        {"<stream>#<partition>": {"chain": "…", "timestamp": 1796083200000, "sequence": 3}, …}

A chain is one program's at a time, since each message names the one before it. So a file is locked while it is used,
and another program with the same key gets the next number, and chains of its own. What is written down is what may have
been sent: it is on disk before the first byte leaves, and no message id is ever used twice.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import string
from pathlib import Path
from typing import IO

import msgspec

from logstore.files import written_whole
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, MessageRef, StreamPart

MAX_PROGRAMS = 64
"""With one key, at once, on one machine."""
MAX_BYTES = 16 << 20
MAX_AHEAD_MS = 1_000
"""So far a clock that was put back is waited for, by sequence numbers."""
CHAIN_ID_CHARS = 20
_LETTERS = string.ascii_letters + string.digits


class Chain(msgspec.Struct):
    """A message chain and its newest message; ``timestamp`` -1: none yet."""

    chain: str
    timestamp: int = -1
    sequence: int = 0

    def next(self, timestamp_ms: int) -> tuple[MessageRef, MessageRef | None]:
        """Place of the next message, not before the newest, and the newest, which it names."""
        before = None if self.timestamp < 0 else MessageRef(self.timestamp, self.sequence)
        if timestamp_ms <= self.timestamp:
            self.sequence += 1
        else:
            self.timestamp, self.sequence = timestamp_ms, 0
        return MessageRef(self.timestamp, self.sequence), before


def begin_chain() -> Chain:
    return Chain("".join(secrets.choice(_LETTERS) for _ in range(CHAIN_ID_CHARS)))


class Chains:
    """All chains of one key in one program. One thread."""

    def __init__(self, folder: Path, publisher: Address) -> None:
        """Raises ConfigError: the folder cannot be written, or too many programs use it."""
        self._chains: dict[str, Chain] = {}
        self._late: dict[StreamPart, Chain] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path, self._lock = _acquire(folder, publisher)
            self._chains = _load(self.path)
        except OSError as error:
            raise ConfigError(
                f"{folder}: {error.strerror or error}; name another folder in LOGSTORE_STATE_DIR", field="state"
            ) from error

    def next(self, part: StreamPart, timestamp_ms: int, *, is_late: bool) -> tuple[str, MessageRef, MessageRef | None]:
        """Chain, place and predecessor of the next message of a stream's partition.

        ``is_late``: the timestamp is the message's own, not the present. A chain only goes on forwards, so what lies
        before its newest message begins a chain of its own, which is not written down; and so does the present, where
        the newest message lies beyond it.
        """
        name = f"{part[0]}#{part[1]}"
        chain = self._chains.get(name)
        if chain is None or (not is_late and timestamp_ms + MAX_AHEAD_MS < chain.timestamp):
            chain = self._chains[name] = begin_chain()
        if is_late and timestamp_ms < chain.timestamp:
            late = self._late.get(part)
            if late is None or timestamp_ms < late.timestamp:
                late = self._late[part] = begin_chain()
            chain = late
        place, before = chain.next(timestamp_ms)
        return chain.chain, place, before

    def save(self) -> None:
        """To disk. Raises ConfigError."""
        try:
            with written_whole(self.path) as file:
                file.write(msgspec.json.encode(self._chains))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}", field="state") from error

    def close(self) -> None:
        self._lock.close()


def _acquire(folder: Path, publisher: Address) -> tuple[Path, IO[bytes]]:
    for number in range(MAX_PROGRAMS):
        path = folder / f"{publisher.hex()}-{number}.json"
        lock = path.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return path, lock
    raise ConfigError(f"{MAX_PROGRAMS} programs publish with this key already", field="state")


def _load(path: Path) -> dict[str, Chain]:
    """Nothing where it is not there, or not readable any more: then chains begin anew, which is safe."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        data = file.read(MAX_BYTES)
    try:
        return msgspec.json.decode(data, type=dict[str, Chain])
    except msgspec.MsgspecError:
        return {}
