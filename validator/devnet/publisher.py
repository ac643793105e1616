"""All publishers of the development network, and the lossy network that carries their messages to the brokers.

``python -m validator.devnet.publisher --config FILE.json`` signs real Streamr messages at ``rate`` a second in total,
each publisher in its own way (``signers``), public, encrypted and binary ones, with timestamps in [start_ms, end_ms),
and slips forged ones in between. With ``bus`` messages go by that network, and only forged copies of a message take the
lossy way to each broker, as a hostile stranger would post them. It stops publishing at ``end_ms``, brings what is under
way to its end, and listens until SIGTERM:

    POST /publish    lines from elsewhere (brokers' receipts), treated like all others
    GET  /health     {"published", "forged", "pending", "dropped", "done"}

Files, JSON lines: ``published_log`` {"time_ms", "kind": "message", "stream", "partition", "form", "line"} per valid
message signed and form in which it travels, before it is sent; ``forged_log`` the same per forged one. ``line`` is the
array as it goes over the wire where ``form`` is "array", and the protobuf message in base64 where it is "protobuf":

    wrong_signature     a true message with the signature of a stranger: one message id, one signed text
    altered_content     a true message with another content and the true signature: one message id
    unknown_publisher   validly signed by a key that may not publish on the stream
"""

from __future__ import annotations

import asyncio
import json
import string
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from validator.devnet.bus import BusConfig, open_bus
from validator.devnet.network import LinkFaults, Network, Parcel, log_forms, parcel_of, parcel_of_line
from validator.devnet.process import LineLog, end_process_on_failure, listen, now_ms, read_config, run, serve
from validator.devnet.signers import AccountSigner, PublisherConfig, Signer, make_signer, make_stranger
from validator.ports.bus import MessageBus
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.payload import digest_of_payload
from validator.protocol.codec.received import ARRAY, PROTOBUF
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.hashing import hash_labelled
from validator.protocol.model import (
    ContentType,
    Digest,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    SignatureType,
)

ENCRYPTED = 0.1
BINARY = 0.04
"""Shares of all messages: small, since both are noise to a compressor. Arrays know no binary content."""
_WEIGHTS = {SignatureType.ML_DSA_87: 0.05, SignatureType.ERC_1271: 0.4}
"""How often a chain is drawn, by how its publisher signs: an ML-DSA key and signature have 7 KiB together, and a wallet
is asked by everybody who reads its message."""
FORGED_KINDS = ("wrong_signature", "altered_content", "unknown_publisher")
MAX_PUBLISH_BYTES = 8 << 20
MIN_CONTENT_BYTES = 200
MAX_CONTENT_BYTES = 1500
MAX_BEHIND_MS = 2_000
"""Messages that are overdue longer (the machine was busy, or the start is past) are left out, not sent in a burst."""
_WORDS = (
    *("temperature", "Straße", "humidité", "東京", "датчик", "ορόσημο", "wind", "☂", "rain", "😀", "pressure", "naïve"),
    *(
        "Łódź",
        "कश्मीर",
        "سلام",
        "עולם",
        "line\u2028break",
        'quote"',
        "back\\slash",
        "tab\t",
        "<b>html</b>",
        "100%",
        "null",
    ),
)


class StreamConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One stream: its partitions, and the publishers that may publish on it."""

    id: str
    partitions: int
    publishers: list[PublisherConfig]


class BrokerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A broker: base URL, and the form in which it takes messages."""

    url: str
    form: str = ARRAY


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The config file of publishers and network. Probabilities as in ``network.LinkFaults``; ``forged`` per message."""

    port_file: Path
    published_log: Path
    forged_log: Path
    streams: list[StreamConfig]
    brokers: list[BrokerConfig]
    start_ms: int
    end_ms: int
    rate: float = 50.0
    seed: int = 0
    loss: float = 0.05
    duplicates: float = 0.03
    reordered: float = 0.2
    reorder_ms: int = 400
    late: float = 0.02
    late_everywhere: float = 0.01
    max_delay_ms: int = 16_000
    forged: float = 0.02
    batch_ms: int = 200
    network_log: Path | None = None
    port: int = 0
    bus: BusConfig | None = None


def personal_digest(text: bytes) -> Digest:
    """EIP-191 digest of a personal message."""
    return digest_of_payload(SignatureType.ECDSA_SECP256K1_EVM, text)


@dataclass(frozen=True, slots=True)
class Body:
    """What a message says of its content: public JSON unless told otherwise."""

    content_type: ContentType = ContentType.JSON
    encryption_type: EncryptionType = EncryptionType.NONE
    group_key_id: str | None = None
    new_group_key: NewGroupKey | None = None


class MessageChain:
    """One chain of one publisher on one stream partition: each message refers to its predecessor."""

    def __init__(self, signer: Signer | SigningKey, stream_id: str, partition: int, msg_chain_id: str) -> None:
        """A bare key signs for its account, in the old way."""
        self.signer: Signer = AccountSigner(signer) if isinstance(signer, SigningKey) else signer
        self.stream_id = stream_id
        self.partition = partition
        self.msg_chain_id = msg_chain_id
        self._last: MessageRef | None = None

    def next(self, timestamp_ms: int, content: bytes, body: Body | None = None) -> Message:
        """The next message; never older than the last one, numbered where the time is the same."""
        body = body or Body()
        last = self._last
        if last is not None and timestamp_ms <= last.timestamp_ms:
            ref = MessageRef(last.timestamp_ms, last.sequence_number + 1)
        else:
            ref = MessageRef(timestamp_ms, 0)
        unsigned = Message(
            self.stream_id,
            self.partition,
            ref.timestamp_ms,
            ref.sequence_number,
            self.signer.publisher_id,
            self.msg_chain_id,
            last,
            MessageType.MESSAGE,
            body.content_type,
            body.encryption_type,
            body.group_key_id,
            body.new_group_key,
            content,
            self.signer.signature_type,
            b"",
        )
        self._last = ref
        return self.signer.sign(unsigned)

    def sign(self, timestamp_ms: int, content: bytes) -> bytes:
        """The next message as the array that goes over the wire; of a signer that arrays know."""
        return write_legacy_array(self.next(timestamp_ms, content))


class Publishers:
    """Every publisher's chains, drawn from by a seeded generator."""

    def __init__(self, streams: list[StreamConfig], seed: int) -> None:
        """Raises ConfigError for a stream without publishers or a key that is none."""
        self._chance = Random(f"{seed}/publishers")
        self._seed = seed
        self._chains: list[MessageChain] = []
        self._strangers: list[MessageChain] = []
        for stream in streams:
            if not stream.publishers or not 1 <= stream.partitions <= 100:
                raise ConfigError(f"streams: {stream.id}: needs publishers and 1 to 100 partitions", field="streams")
            signers = [make_signer(publisher) for publisher in stream.publishers]
            for partition in range(stream.partitions):
                for signer in signers:
                    self._chains.append(MessageChain(signer, stream.id, partition, self._chain_id()))
                    stranger = make_stranger(signer, seed)
                    self._strangers.append(MessageChain(stranger, stream.id, partition, self._chain_id()))
        self._weights = [_WEIGHTS.get(chain.signer.signature_type, 1.0) for chain in self._chains]
        self._group_key = hash_labelled("logstore/devnet/group key", str(seed).encode())
        self._number = 0
        self._kinds = self._chance.sample(FORGED_KINDS, len(FORGED_KINDS))
        self._forged = 0

    def next(self, timestamp_ms: int) -> Message:
        """A message of one of the publishers: of each chain in turn at first, so that each is there."""
        chains = self._chains
        chain = chains[self._number] if self._number < len(chains) else self._chance.choices(chains, self._weights)[0]
        self._number += 1
        content = self._content(chain, self._number)
        kind = self._chance.random()
        if kind < ENCRYPTED:
            return chain.next(timestamp_ms, self._encrypt(content), self._encrypted(kind < ENCRYPTED / 10))
        if kind < ENCRYPTED + BINARY and chain.signer.signature_type is not SignatureType.ECDSA_SECP256K1_LEGACY:
            return chain.next(timestamp_ms, self._chance.randbytes(len(content)), Body(ContentType.BINARY))
        return chain.next(timestamp_ms, content)

    def _encrypted(self, rotates: bool) -> Body:
        """Of a group key, which the message may replace by another one."""
        new_key = NewGroupKey(self._chain_id(), self._encrypt(self._chance.randbytes(32))) if rotates else None
        return Body(encryption_type=EncryptionType.AES, group_key_id="group-key", new_group_key=new_key)

    def _encrypt(self, data: bytes) -> bytes:
        """AES-256-CTR behind its 16 random bytes, as Streamr's clients do."""
        start = self._chance.randbytes(16)
        encryptor = Cipher(algorithms.AES(self._group_key), modes.CTR(start)).encryptor()
        return start + encryptor.update(data) + encryptor.finalize()

    def forge(self, original: Message) -> tuple[str, Message]:
        """A forged message beside a true one, and its kind; the kinds take turns."""
        kind = self._kinds[self._forged % len(self._kinds)]
        self._forged += 1
        if kind == "wrong_signature":
            signer = next(c.signer for c in self._chains if c.signer.publisher_id == original.publisher_id)
            return kind, make_stranger(signer, self._seed).sign(original)
        if kind == "altered_content":
            content = original.content
            if original.content_type is ContentType.JSON and original.encryption_type is EncryptionType.NONE:
                body = json.loads(content)
                body["value"] = body["value"] + 1
                return kind, replace(original, content=_json(body))
            return kind, replace(original, content=content[:-1] + bytes([content[-1] ^ 1]))
        chain = self._chance.choice(self._strangers)
        return kind, chain.next(original.timestamp_ms, self._content(chain, self._forged))

    def _content(self, chain: MessageChain, number: int) -> bytes:
        """JSON of 200 to 1500 bytes, with text in several scripts."""
        chance = self._chance
        body: dict[str, object] = {
            "device": f"{chain.stream_id.rpartition('/')[2]}-{chain.partition}",
            "number": number,
            "value": round(chance.uniform(-40, 60), 3),
            "text": "",
        }
        size = chance.randint(MIN_CONTENT_BYTES, MAX_CONTENT_BYTES - 100)
        words = []
        length = len(_json(body))
        while length < size:
            word = chance.choice(_WORDS)
            words.append(word)
            length += len(_json(word)) - 1
        body["text"] = " ".join(words)
        return _json(body)

    def _chain_id(self) -> str:
        return "".join(self._chance.choices(string.ascii_letters + string.digits, k=20))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class PublisherProcess:
    """Publishers, network and their logs, served by ``build_app``."""

    def __init__(self, config: Config) -> None:
        if not 0 <= config.loss < 1 or config.rate < 0 or config.end_ms < config.start_ms:
            raise ConfigError("loss must be in [0, 1), rate not negative, end_ms not before start_ms", field="loss")
        self.config = config
        self.publishers = Publishers(config.streams, config.seed)
        faults = LinkFaults(
            config.loss,
            config.duplicates,
            config.reordered,
            config.reorder_ms,
            config.late,
            config.late_everywhere,
            config.max_delay_ms,
        )
        self._log = LineLog(config.network_log) if config.network_log is not None else None
        self.network = Network(
            [(broker.url, broker.form) for broker in config.brokers],
            faults,
            f"{config.seed}/network",
            batch_ms=config.batch_ms,
            log=self._log,
        )
        self._forging = Random(f"{config.seed}/forged")
        self._published = LineLog(config.published_log)
        self._forged = LineLog(config.forged_log)
        self.counts = {"published": 0, "forged": 0}
        self.done = False
        self._bus: MessageBus | None = None

    async def publish(self) -> None:
        """Sign and send from start_ms to end_ms at the given rate, then say so in ``done``."""
        config = self.config
        if config.bus is not None:
            await self._join(config.bus)
        for due_ms in _due_times(config.start_ms, config.end_ms, config.rate):
            ahead = due_ms - now_ms()
            if ahead > 0:
                await asyncio.sleep(ahead / 1000)
            elif ahead < -MAX_BEHIND_MS:
                continue
            elif self.counts["published"] % 16 == 0:
                await asyncio.sleep(0)
            time_ms = now_ms()
            if time_ms >= config.end_ms:
                break
            await self._send_one(max(time_ms, config.start_ms))
        self.done = True

    async def _join(self, config: BusConfig) -> None:
        """Reach the network before the first message is due, and know the neighbours that hand it on."""
        bus = await open_bus(config)
        self._bus = bus
        await bus.join([(stream.id, number) for stream in self.config.streams for number in range(stream.partitions)])
        discarding = asyncio.create_task(_discard(bus))
        discarding.add_done_callback(end_process_on_failure)
        with suppress(TransientError):  # alone it may stay: then messages wait for the first neighbour
            await bus.wait_neighbours(max(0, self.config.start_ms - now_ms()) / 1000)

    async def _send(self, message: Message, parcel: Parcel, time_ms: int, *, is_copy: bool = False) -> None:
        """By the bus where there is one; a second message of one id goes to brokers directly, since nodes of the
        network hand on one message of an id only.
        """
        if self._bus is None or is_copy:
            self.network.send(parcel, time_ms)
        else:
            await self._bus.publish(message.stream_part, parcel[PROTOBUF])

    async def _send_one(self, time_ms: int) -> None:
        message = self.publishers.next(time_ms)
        if message.timestamp_ms >= self.config.end_ms:
            return
        parcel = parcel_of(message)
        self._published.write_all(_entries(message, "message", parcel))
        self.counts["published"] += 1
        await self._send(message, parcel, time_ms)
        if self._forging.random() < self.config.forged:
            kind, forged = self.publishers.forge(message)
            parcel = parcel_of(forged)
            self._forged.write_all(_entries(forged, kind, parcel))
            self.counts["forged"] += 1
            await self._send(forged, parcel, time_ms, is_copy=kind != "unknown_publisher")

    def build_app(self) -> Starlette:
        async def publish(request: Request) -> Response:
            pieces = []
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > MAX_PUBLISH_BYTES:
                    return JSONResponse({"error": f"more than {MAX_PUBLISH_BYTES} bytes"}, 413)
                pieces.append(piece)
            lines = [line for line in b"".join(pieces).split(b"\n") if line]
            for line in lines:
                self.network.send(parcel_of_line(line), now_ms())
            return JSONResponse({"sent": len(lines)})

        async def health(_request: Request) -> Response:
            network = self.network
            state = {**self.counts, "pending": network.pending, "dropped": network.dropped, "done": self.done}
            return JSONResponse(state)

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            tasks = [asyncio.create_task(self.network.deliver()), asyncio.create_task(self.publish())]
            for task in tasks:
                task.add_done_callback(end_process_on_failure)
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for log in (self._published, self._forged, self._log):
                if log is not None:
                    log.close()

        return Starlette(
            routes=[Route("/publish", publish, methods=["POST"]), Route("/health", health)], lifespan=lifespan
        )


async def _discard(bus: MessageBus) -> None:
    """What one's own node hears is nothing to a publisher."""
    async for _ in bus.batches():
        pass


def _due_times(start_ms: int, end_ms: int, rate: float) -> Iterator[float]:
    """When the messages are due, in Unix ms."""
    count = int((end_ms - start_ms) * rate / 1000)
    return (start_ms + number * 1000 / rate for number in range(count))


def _entries(message: Message, kind: str, parcel: Parcel) -> list[dict[str, object]]:
    """One per form."""
    told = {"time_ms": message.timestamp_ms, "kind": kind, "stream": message.stream_id, "partition": message.partition}
    return [{**told, **form} for form in log_forms(parcel)]


def main(config_file: Path) -> None:
    """Publish and serve until SIGTERM. Raises ConfigError before the first message."""
    config = read_config(Config, config_file)
    serve(PublisherProcess(config).build_app(), listen(config.port), config.port_file)


if __name__ == "__main__":
    sys.exit(run("publisher", main, sys.argv[1:]))
