"""An hour of twenty streams as a bundle holds it, made from a seed: sensors, ticks, free text, nested events.

Half of the messages are sensors' readings, a third ticks, a tenth texts of ordinary words, the rest lists of events;
each stream has one kind and one or two publishers. Signatures are random bytes with a low s, as hard to compress as
true ones: nobody checks them here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from msgspec.structs import replace

from validator.protocol.codec.message import make_record
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    Record,
    SignatureType,
)

STREAMS = 20
PUBLISHERS = 36
START_MS = 1_700_000_000_000
STEP_MS = 18
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_TEXT = (
    "the of and a to in is was that for it as with be by on not he this are or his from at which but have an had they "
    "you were their one all we can her has there been if more when will would who so no said what up its about than "
    "into them only other new some could time these two may then do first any my now such like our over man me even "
    "most made after also did many before must through back years where much your way well down should because each "
    "just those people how too little state good very make world still own see men work long get here between both"
)
_WORDS = _TEXT.split()


def make_messages(count: int, seed: int) -> list[Message]:
    """``count`` messages in canonical order. The same for the same seed."""
    rng = random.Random(seed)
    addresses = [rng.randbytes(20) for _ in range(PUBLISHERS)]
    chains = ["".join(rng.choices(_LETTERS, k=20)) for _ in range(PUBLISHERS)]
    last: dict[tuple[int, int], int] = {}
    messages = []
    for number in range(count):
        kind = rng.random()
        stream = int(kind * STREAMS)
        publisher = rng.choice(range(stream, PUBLISHERS, STREAMS))
        previous = last.get((stream, publisher))
        timestamp_ms = START_MS + number * STEP_MS + rng.randrange(-50, 50)
        if previous is not None and previous >= timestamp_ms:
            timestamp_ms = previous + 1
        last[stream, publisher] = timestamp_ms
        messages.append(
            Message(
                stream_id=f"0x{addresses[stream].hex()}/bench/stream-{stream}",
                partition=0,
                timestamp_ms=timestamp_ms,
                sequence_number=0,
                publisher_id=addresses[publisher],
                msg_chain_id=chains[publisher],
                prev=None if previous is None else MessageRef(previous, 0),
                message_type=MessageType.MESSAGE,
                content_type=ContentType.JSON,
                encryption_type=EncryptionType.NONE,
                group_key_id=None,
                new_group_key=None,
                content=json.dumps(_value(rng, kind), separators=(",", ":")).encode(),
                signature_type=SignatureType.ECDSA_SECP256K1_LEGACY,
                signature=rng.randbytes(32)
                + bytes([rng.randrange(128)])
                + rng.randbytes(31)
                + rng.choice((b"\x1b", b"\x1c")),
            )
        )
    messages.sort(key=lambda m: (m.stream_id, m.timestamp_ms, m.publisher_id))
    return messages


def make_records(messages: list[Message], hours: int = 1) -> Iterator[Record]:
    """Records in canonical order, each stream's hour again and again, each time later."""
    start = 0
    while start < len(messages):
        end = start
        while end < len(messages) and messages[end].stream_id == messages[start].stream_id:
            end += 1
        for hour in range(hours):
            shift = hour * len(messages) * STEP_MS * 2
            for m in messages[start:end]:
                yield make_record(shift_message(m, shift) if shift else m)
        start = end


def shift_message(m: Message, shift_ms: int) -> Message:
    prev = None if m.prev is None else MessageRef(m.prev.timestamp_ms + shift_ms, m.prev.sequence_number)
    return replace(m, timestamp_ms=m.timestamp_ms + shift_ms, prev=prev)


def write_line(m: Message) -> bytes:
    """The message as a broker's line of NDJSON."""
    prev = None if m.prev is None else {"timestamp": m.prev.timestamp_ms, "sequenceNumber": m.prev.sequence_number}
    fields = {
        "streamId": m.stream_id,
        "streamPartition": m.partition,
        "timestamp": m.timestamp_ms,
        "sequenceNumber": m.sequence_number,
        "publisherId": f"0x{m.publisher_id.hex()}",
        "msgChainId": m.msg_chain_id,
        "prevMsgRef": prev,
        "messageType": 27,
        "contentType": 0,
        "encryptionType": 0,
        "groupKeyId": None,
        "content": m.content.decode(),
        "newGroupKey": None,
        "signatureType": 2,
        "signature": f"0x{m.signature.hex()}",
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def _value(rng: random.Random, kind: float) -> dict[str, object]:
    if kind < 0.5:
        return {
            "deviceId": f"sensor-{rng.randrange(40):03d}",
            "temperature": round(20 + rng.gauss(0, 3), 2),
            "humidity": round(55 + rng.gauss(0, 8), 1),
            "pressure": round(1013 + rng.gauss(0, 5), 1),
            "battery": rng.randrange(20, 100),
            "status": rng.choice(["ok", "ok", "ok", "ok", "low-battery", "calibrating"]),
            "location": {"lat": 60.17, "lon": 24.94},
        }
    if kind < 0.84:
        price = round(40_000 + rng.gauss(0, 900), 2)
        return {
            "symbol": rng.choice(["BTC-USDT", "ETH-USDT", "DATA-USDT", "MATIC-USDT"]),
            "price": price,
            "bid": round(price - rng.random(), 2),
            "ask": round(price + rng.random(), 2),
            "volume": round(rng.expovariate(0.5), 4),
            "side": rng.choice(["buy", "sell"]),
            "tradeId": rng.randrange(10**8, 10**9),
        }
    if kind < 0.94:
        words = rng.choices(_WORDS, k=rng.randrange(60, 240))
        return {"text": " ".join(words), "lang": "en", "user": f"user{rng.randrange(2000)}"}
    events = [
        {
            "type": rng.choice(["click", "view", "scroll", "buy"]),
            "x": rng.randrange(1920),
            "y": rng.randrange(1080),
            "target": {"id": f"node-{rng.randrange(300)}", "tag": rng.choice(["div", "a", "button"])},
        }
        for _ in range(rng.randrange(3, 14))
    ]
    return {"events": events, "session": f"{rng.getrandbits(64):016x}"}
