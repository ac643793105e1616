"""A buffer with scratch files gives what collecting in memory gives, whatever brokers serve and however it is cut."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.builders import GENESIS_MS, a_key, a_message, a_p256_message, a_stream_id
from tests.fakes.held_pulls import HeldPull
from tests.plain_collecting import broker_shares, check_pulls, encode_sightings, union_of
from tests.segments import load_set
from validator.ports.sources import PulledRecord
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.consensus.proposal import Span
from validator.protocol.consensus.window import make_entries
from validator.protocol.model import Address, Message, MessageRef, Record, SignatureType, StreamPart
from validator.steps import window_buffer
from validator.steps.spool import RecordSpool, Spool
from validator.steps.window_buffer import WindowBuffer
from validator.store.segments import SegmentStore

SPAN = Span(GENESIS_MS, GENESIS_MS + 10)
LIMIT = 3_000
PARTS: list[StreamPart] = [(a_stream_id(), 0), (a_stream_id(path="a"), 0), (a_stream_id(path="a"), 1)]
BROKERS = [Address(bytes([n]) * 20) for n in range(1, 5)]


def forms_of(message: Message) -> list[tuple[str, bytes]]:
    """One message as brokers of both generations send it."""
    forms = [("protobuf", write_protobuf(message))]
    if message.signature_type is SignatureType.ECDSA_SECP256K1_LEGACY and message.content:
        array = write_legacy_array(message)
        forms += [("array", array), ("array", array.replace(b"[32,", b"[32, ", 1))]
    return forms


def the_pool() -> list[tuple[StreamPart, str, bytes]]:
    """Sound messages, variants of them, equivocations, contract signatures, forgeries, strangers', and junk."""
    messages: list[Message] = []
    for number in range(14):
        part = PARTS[number % 3]
        messages.append(
            a_message(
                a_key(1 + number % 2),
                stream_id=part[0],
                partition=part[1],
                timestamp_ms=GENESIS_MS + number // 5,
                sequence_number=number % 2,
                content=b'{"n":%d}' % (number // 2),
                signature_type=SignatureType.ECDSA_SECP256K1_EVM if number % 4 == 3 else 0,
            )
        )
    first = messages[0]
    # the signed text has no separators, so a chain id's digits may stand in the previous reference
    slid = a_message(
        stream_id=first.stream_id, timestamp_ms=GENESIS_MS + 4, msg_chain_id="c", prev=MessageRef(GENESIS_MS, 0)
    )
    messages += [
        slid,
        replace(slid, msg_chain_id=f"c{GENESIS_MS}0", prev=None),
        replace(first, group_key_id="other"),
        replace(messages[5], group_key_id="x"),
        replace(messages[5], group_key_id="y"),
        a_message(stream_id=PARTS[0][0], sequence_number=7, content=b"one"),
        a_message(stream_id=PARTS[0][0], sequence_number=7, content=b"two"),
        a_message(stream_id=PARTS[0][0], signature_type=SignatureType.ERC_1271, content=b"yes"),
        a_message(stream_id=PARTS[0][0], signature_type=SignatureType.ERC_1271, content=b"no"),
        a_p256_message(stream_id=PARTS[0][0]),
        replace(first, content=b"forged"),
        a_message(a_key(9), stream_id=PARTS[0][0], content=b"a stranger"),
        a_message(stream_id=PARTS[0][0], timestamp_ms=GENESIS_MS + 10),
        a_message(stream_id=PARTS[0][0], content=b"z" * LIMIT),
        a_message(stream_id=a_stream_id(path="elsewhere")),
    ]
    pool = [(m.stream_part if m.stream_part in PARTS else PARTS[0], *form) for m in messages for form in forms_of(m)]
    pool += [
        (PARTS[1], "array", b"[32"),
        (PARTS[1], "protobuf", b"\x0a\xff"),
        (PARTS[2], "array", b"x" * (2 * LIMIT + 1)),
    ]
    pool.append((PARTS[1], "array", pool[0][2]))
    return pool


POOL = the_pool()


def permitted(_stream: str, publisher: bytes) -> bool:
    return publisher != a_key(9).address


def contract_check(record: Record) -> bool:
    return record.message.content == b"yes"


def pulls_of(servings: list[tuple[int, int]], complete: list[bool]) -> list[HeldPull]:
    """(broker, number in the pool) in the order of arrival, as pulls."""
    pulls = []
    for place, (broker, part) in enumerate((b, p) for b in BROKERS for p in PARTS):
        chosen = [POOL[n] for b, n in servings if BROKERS[b] == broker and POOL[n][0] == part]
        records = tuple(PulledRecord(broker, at, data, form) for at, (_, form, data) in enumerate(chosen))
        pulls.append(HeldPull(broker, part, complete[place], records=records))
    return pulls


def varied_numbers() -> list[int]:
    """Which of the pool have variants there."""
    everything = [(0, number) for number in range(len(POOL))]
    plain = check_pulls(pulls_of(everything, [True] * 12), SPAN, permitted, contract_check, message_limit=LIMIT)
    varied = union_of(plain).varied
    sources = {data: number for number, (_, _, data) in enumerate(POOL)}
    assert len(varied) >= 3
    return [
        number
        for data, number in sources.items()
        for part, form, _ in [POOL[number]]
        if any(r.identity in varied for r in read_alone(part, form, data))
    ]


def read_alone(part: StreamPart, form: str, data: bytes) -> list[Record]:
    pull = HeldPull(BROKERS[0], part, complete=True, records=(PulledRecord(BROKERS[0], 0, data, form),))
    return list(check_pulls([pull], SPAN, permitted, contract_check, message_limit=LIMIT).records.values())


SERVED = st.tuples(st.integers(0, 3), st.integers(0, len(POOL) - 1))
SERVED_VARIANT = st.tuples(st.integers(0, 3), st.sampled_from(varied_numbers()))


@given(
    servings=st.one_of(st.lists(SERVED, max_size=90), st.lists(SERVED_VARIANT, max_size=12)),
    complete=st.lists(st.booleans(), min_size=12, max_size=12),
    batch=st.integers(1, 40),
    run=st.integers(1, 40),
    memory=st.integers(1, 4_000),
    collide=st.booleans(),
)
def test_streaming_and_memory_agree(
    servings: list[tuple[int, int]], complete: list[bool], batch: int, run: int, memory: int, collide: bool
) -> None:
    pulls = pulls_of(servings, complete)
    plain = check_pulls(pulls, SPAN, permitted, contract_check, message_limit=LIMIT)
    union = union_of(plain)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.multiple(window_buffer, BATCH_RECORDS=batch, RUN_ROWS=run, CHUNK_ROWS=7),
        patch.object(window_buffer, "Spool", lambda where: Spool(where, memory)),
        patch.object(window_buffer, "RecordSpool", lambda where: RecordSpool(where, memory)),
        patch.object(window_buffer, "hash", (lambda _: 3) if collide else hash, create=True),
        WindowBuffer(Path(folder) / "scratch", PARTS) as buffer,
    ):
        for pull in pulls:
            for record in pull.records:
                buffer.ingest(record.broker, pull.stream_part, record.position, [record.data], record.form)
        buffer.check(SPAN, permitted, contract_check, message_limit=LIMIT)
        store = SegmentStore(f"{folder}/sets")
        saved = store.save_ordered(buffer.merge())
        assert saved.entries == make_entries(union.records)
        assert list(load_set(store, saved.set_root)) == [r.canonical for r in union.records]
        assert saved.info.signed_bytes == sum(r.signed_bytes for r in union.records)
        assert buffer.serve_counts() == encode_sightings(plain)
        assert buffer.shares(pulls, BROKERS, free="") == broker_shares(union.records, plain, pulls, BROKERS)
        assert Counter(buffer.rejections) == Counter(plain.rejections)
        assert len(buffer.rejections) == len(plain.rejections)
        assert bool(buffer.rejections) == bool(plain.rejections)
        kept = {r.signed_digest for r in union.records}
        assert sorted(buffer.erc1271) == sorted(plain.contract_signed & kept)
        loaded = [(identity, load()) for identity, load in buffer.identities()]
        assert [r for _, r in loaded] == sorted(plain.records.values(), key=lambda r: r.order)
        assert all(record.identity == identity for identity, record in loaded)
