"""Proofs to hand on: each a small file, or its bytes, that whoever has the network's file can verify.

(proof,) = network.prove("0x…/sensors", "2026-11-30T12:00:05.250")
proof.save("proofs")
network.verify(proof).proves
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from logstore.files import written_whole
from logstore.stored_message import describe_message
from logstore.stored_range import MAX_FILE_BYTES, StoredRange, encode_range
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.stored_message import StoredMessage, encode_stored
from validator.protocol.errors import ConfigError
from validator.protocol.model import Message, Record

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.store import LogStore


@dataclass(frozen=True, slots=True)
class Proof:
    """One stored message with its proof, or all messages of a span. ``data``: the file's bytes."""

    stored: StoredMessage | StoredRange
    data: bytes

    @property
    def messages(self) -> tuple[Message, ...]:
        if isinstance(self.stored, StoredMessage):
            return (decode_message(self.stored.canonical),)
        found = [decode_message(canonical) for part in self.stored.parts for canonical in part.messages]
        return tuple(sorted(found, key=lambda m: (m.timestamp_ms, m.sequence_number)))

    @property
    def bundles(self) -> tuple[int, ...]:
        """Numbers of the bundles whose roots it leads to."""
        if isinstance(self.stored, StoredMessage):
            return (self.stored.number,)
        return tuple(sorted({part.number for part in self.stored.parts}))

    @property
    def name(self) -> str:
        """Of the file, without its suffix."""
        if isinstance(self.stored, StoredMessage):
            (m,) = self.messages
            return f"message-{m.timestamp_ms}-{m.sequence_number}-p{m.partition}"
        return f"span-{self.stored.from_ms}-{self.stored.until_ms}-p{self.stored.part[1]}"

    def save(self, folder: str | Path = ".") -> Path:
        """The file in a folder: complete, or not at all. Messages of one id, by several publishers or of one that
        equivocates, get numbers.

        Raises:
            ConfigError: it cannot be written.
        """
        path, number = Path(folder) / f"{self.name}.proof", 1
        try:
            while path.exists() and path.read_bytes() != self.data:
                number += 1
                path = Path(folder) / f"{self.name}-{number}.proof"
            with written_whole(path) as file:
                file.write(self.data)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}", field="output") from error
        return path

    def describe(self) -> list[dict[str, object]]:
        """The messages as JSON values."""
        return [describe_message(message) for message in self.messages]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which messages of a time; None: whatever."""

    partition: int | None = None
    sequence: int | None = None
    publisher: bytes | None = None

    def fits(self, record: Record) -> bool:
        m = record.message
        return (
            self.partition in (None, m.partition)
            and self.sequence in (None, m.sequence_number)
            and self.publisher in (None, m.publisher_id)
        )


def parse_publisher(text: str | None) -> bytes | None:
    """Raises ConfigError."""
    if text is None:
        return None
    try:
        return bytes.fromhex(text.removeprefix("key:").removeprefix("0x"))
    except ValueError as error:
        raise ConfigError(f"--publisher: {text!r} is not hex", field="publisher") from error


def prove_messages(store: LogStore, output: Output, stream: str, at_ms: int, choice: Choice) -> list[Proof]:
    """Of each message of a time. Raises NotStored where there is none."""
    from logstore.proving import find_messages

    found = find_messages(
        store, output, stream, at_ms, lambda record: record.message.timestamp_ms == at_ms and choice.fits(record)
    )
    return [Proof(stored, encode_stored(stored)) for stored in found]


def prove_span(store: LogStore, output: Output, stream: str, partition: int, from_ms: int, until_ms: int) -> Proof:
    """Of all messages of a span. Raises as ``prove_range``; ConfigError: they are too many for one file."""
    from logstore.range_proving import prove_range

    stored = prove_range(store, output, (stream, partition), from_ms, until_ms)
    data = encode_range(stored)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"--from: {len(data)} bytes, more than {MAX_FILE_BYTES} of one file; prove it in parts", field="from"
        )
    return Proof(stored, data)


def require_one_question(time: object, choice: Choice, span: Sequence[object]) -> bool:
    """Whether a span is asked for, and not times of messages. Raises ConfigError: both, or neither."""
    has_span = any(each is not None for each in span)
    if has_span and (time or choice.sequence is not None or choice.publisher is not None):
        raise ConfigError("--from: of a span all messages are proven; name no times, --sequence, --publisher")
    if not has_span and not time:
        raise ConfigError("TIMESTAMP: name times of messages, or a span with --from and --to", field="timestamps")
    return has_span
