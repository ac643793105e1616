"""Publishing: contents become signed Streamr messages, which are handed to brokers by HTTP.

    with network.publisher("0x…/sensors") as publisher:
        publisher.publish({"temperature": 21.5})
        publisher.publish({"temperature": 19.0}, timestamp="2026-11-29T12:00")     # late data

Brokers find each other's holes, so one that takes a message is enough; all are asked, since one may be down or lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from logstore.brokers import Place
from logstore.chains import Chains
from logstore.connection import now_ms
from logstore.errors import Refused
from logstore.handing_over import Brokers, Taken
from logstore.output import count_of
from logstore.times import parse_time
from validator.net.http.client import BoundedClient
from validator.protocol.codec.message import make_record
from validator.protocol.codec.payload import signature_payload
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import ConfigError, MalformedInput, TransientError
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageType,
    Record,
    SignatureType,
)

BATCH = 1_000
BATCH_BYTES = 4 << 20
"""Of one request: a broker takes 5 000 messages and 16 MiB."""


@dataclass(frozen=True, slots=True)
class Published:
    """A message that at least one broker has. ``brokers``: their URLs; ``others``: URL and words of those without."""

    message: Message
    brokers: tuple[str, ...]
    others: dict[str, str]

    @property
    def timestamp_ms(self) -> int:
        return self.message.timestamp_ms


class Publisher:
    """One partition of a stream, one key. One thread."""

    def __init__(
        self,
        stream: str,
        partition: int,
        signer: Signer,
        chains: Chains,
        places: Sequence[Place],
        http: BoundedClient,
    ) -> None:
        if not 0 <= partition < 100:
            raise ConfigError(f"partition: {partition} is none of 0 to 99", field="partition")
        self.stream = stream
        self.partition = partition
        self.publisher_id = signer.address
        self._signer = signer
        self._chains = chains
        self._http = http
        self._brokers = Brokers(places, http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def publish(self, content: Any, timestamp: str | int | None = None) -> Published:
        """Sign one message and hand it over; when this returns a broker has it on disk.

        ``content``: JSON values, or bytes, which are published as binary. ``timestamp``: of late data, else the
        present.

        Raises:
            Refused: no broker takes it; says why.
            TransientError: no broker can be reached.
            ConfigError: a content or time that is none.
        """
        (batch,) = self.publish_all([(content, timestamp)])
        return batch[0]

    def publish_all(self, items: Iterable[tuple[Any, str | int | None]]) -> Iterator[list[Published]]:
        """Contents with their times (None: the present) in batches, as large as requests may be. Raises as ``publish``,
        once all of a batch were offered.
        """
        batch: list[tuple[bytes, bool, int | None]] = []
        size = 0
        for content, timestamp in items:
            data, is_binary = encode_content(content)
            given = None if timestamp is None else parse_time(str(timestamp), now_ms(), "timestamp")
            if batch and (len(batch) >= BATCH or size + len(data) > BATCH_BYTES):
                yield self._send(batch)
                batch, size = [], 0
            batch.append((data, is_binary, given))
            size += len(data) + 1_000
        if batch:
            yield self._send(batch)

    def _send(self, batch: Sequence[tuple[bytes, bool, int | None]]) -> list[Published]:
        records = [self._sign(*item) for item in batch]
        self._chains.save()
        taken = self._brokers.hand_over((self.stream, self.partition), records)
        lost = [each for each in taken if not each.by]
        if lost:
            raise _explain(lost, len(taken))
        return [Published(each.record.message, tuple(each.by), each.refused | each.unreachable) for each in taken]

    def _sign(self, content: bytes, is_binary: bool, given_ms: int | None) -> Record:
        part = (self.stream, self.partition)
        at_ms = now_ms() if given_ms is None else given_ms
        chain_id, place, before = self._chains.next(part, at_ms, is_late=given_ms is not None)
        unsigned = Message(
            self.stream,
            self.partition,
            place.timestamp_ms,
            place.sequence_number,
            self.publisher_id,
            chain_id,
            before,
            MessageType.MESSAGE,
            ContentType.BINARY if is_binary else ContentType.JSON,
            EncryptionType.NONE,
            None,
            None,
            content,
            SignatureType.ECDSA_SECP256K1_EVM,
            b"",
        )
        signed = signature_payload(unsigned)
        prefixed = b"\x19Ethereum Signed Message:\n%d%b" % (len(signed), signed)
        try:
            return make_record(replace(unsigned, signature=self._signer.sign_payload(prefixed)))
        except MalformedInput as error:
            raise ConfigError(f"{error.field}: {error.reason}", field=error.field) from error


def encode_content(content: Any) -> tuple[bytes, bool]:
    """Bytes of a content, and whether it is binary. Raises ConfigError: no JSON value."""
    if isinstance(content, Raw):
        return content.data, False
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content), True
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(), False
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"content: no JSON value: {error}", field="content") from error


class Raw:
    """JSON as a text that is published as it stands: parsing and printing it again would change its bytes."""

    __slots__ = ("data", "value")

    def __init__(self, data: bytes) -> None:
        """Raises ConfigError: it is no JSON."""
        try:
            self.value: Any = msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"content: no JSON: {error}", field="content") from error
        self.data = data


def _explain(lost: Sequence[Taken], count: int) -> Refused | TransientError:
    """Why messages are with nobody: of the first, in every broker's words."""
    first = lost[0]
    how_many = f"{len(lost)} of {count_of(count, 'message')} not taken by any broker"
    words = "; ".join(f"{url}: {said}" for url, said in (first.refused | first.unreachable).items())
    if first.refused:
        return Refused("publish", "message", f"{how_many}: {words}")
    return TransientError(f"publish: {how_many}: {words}")
