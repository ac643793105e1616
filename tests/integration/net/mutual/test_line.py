"""Brokers, and a consumer that audits, over real HTTP: signed both ways, and closed to strangers where it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from ipaddress import ip_network

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from tests.broker_parts import serving
from tests.builders import GENESIS_MS, a_key, a_stream_id, some_records
from tests.fakes.message_store import MemoryMessageStore
from validator.broker.answers import DOOR, Answers
from validator.broker.slices import SliceSums, SummedStore
from validator.broker.sum_book import SqliteSums
from validator.net.http.client import BoundedClient
from validator.net.http.urls import check_url
from validator.net.mutual import wire
from validator.net.mutual.audit import audit_answer
from validator.net.mutual.client import HttpLine
from validator.net.signed.listener import Limits, SignedListener
from validator.net.signed.pages import decode_page, encode_page
from validator.net.signed.signing import Channel
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.slice_claim import decode_claim, sign_claim, verify_claim
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.merkle import compute_root
from validator.protocol.model import Address, Digest, Record
from validator.protocol.omission import build_omission, verify_omission
from validator.protocol.slices import SLICE_MS, sum_messages

CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
CHANNEL = Channel(wire.PURPOSE, CONTEXT, Digest(b"\x09" * 32))
LOOPBACK = (ip_network("127.0.0.0/8"),)
BROKER, OTHER, CONSUMER = a_key(1), a_key(2), a_key(3)
PART = (a_stream_id(), 0)
START_MS = GENESIS_MS - GENESIS_MS % SLICE_MS
COUNT = 400


@dataclass
class Served:
    records: list[Record]
    store: MemoryMessageStore
    line: Callable[[SigningKey], HttpLine]
    offered: list[Record]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A broker with 400 messages in two slices, and lines to it."""
    held = some_records(COUNT // 2, timestamp_ms=START_MS) + some_records(COUNT // 2, timestamp_ms=START_MS + SLICE_MS)
    raw = MemoryMessageStore()
    sums = SliceSums(SqliteSums(":memory:"), raw, from_ms=START_MS)
    store = SummedStore(raw, sums)
    store.insert(held, START_MS)
    sums.settle(START_MS + 10 * SLICE_MS)
    offered: list[Record] = []

    def admit(records: Sequence[Record]) -> Sequence[StrEnum | None]:
        offered.extend(records)
        return [None for _ in records]

    answers = Answers(store, sums, admit, BROKER, CONTEXT, lambda: START_MS + 10 * SLICE_MS)
    listener = SignedListener(
        DOOR, lambda: {OTHER.address: ""}, answers.perform, BROKER, CHANNEL, Limits(allow_nets=LOOPBACK)
    )
    lines: list[HttpLine] = []
    with serving(Starlette(routes=[Route("/{path:path}", listener.handle, methods=["GET", "POST"])])) as url:

        def line(key: SigningKey) -> HttpLine:
            check = partial(check_url, allow_http=True, allow_nets=LOOPBACK)
            lines.append(
                HttpLine(CHANNEL, key, BoundedClient(allow_nets=LOOPBACK), lambda: {BROKER.address: url}, check)
            )
            return lines[-1]

        yield Served(held, raw, line, offered)
        for made in lines:
            made.close()
    sums.close()


def test_a_broker_asks_from_the_coarse_to_the_fine(served: Served) -> None:
    line = served.line(OTHER)

    async def ask(path: str, body: bytes) -> bytes:
        spoken = await line.ask(BROKER.address, path, body)
        spoken.verify(CHANNEL)
        with pytest.raises(MalformedInput):
            replace(spoken, body=spoken.body + b"x").verify(CHANNEL)
        return spoken.body

    async def main() -> None:
        sums = wire.decode_sums(await ask(wire.SUMS, wire.encode_span(START_MS, START_MS + 6 * SLICE_MS)))
        assert [s.count for s in sums] == [COUNT // 2, COUNT // 2]
        parts = wire.decode_parts(await ask(wire.PARTS, wire.encode_slices([START_MS, START_MS + 5 * SLICE_MS])))
        leaves = [record.leaf for record in served.records[: COUNT // 2]]
        assert parts == {START_MS: [sum_messages(PART, leaves)], START_MS + 5 * SLICE_MS: []}
        listed = await ask(wire.LEAVES, wire.encode_listing(PART, START_MS, parts[START_MS][0].root))
        assert wire.decode_leaves(listed) == leaves
        asked = wire.encode_bodies(START_MS, START_MS + SLICE_MS, [PART], leaves[:3])
        assert decode_page(await ask(wire.BODIES, asked), 3) == [r.canonical for r in served.records[:3]]
        assert wire.decode_offered(await ask(wire.OFFER, encode_page([served.records[0].canonical]))) == (1, {})
        assert served.offered == served.records[:1]
        with pytest.raises(TransientError) as moved:
            await ask(wire.LEAVES, wire.encode_listing(PART, START_MS, compute_root(leaves[:2])))
        moved.value.spoken.verify(CHANNEL)
        with pytest.raises(RemoteFault, match="range"):
            await ask(wire.SUMS, wire.encode_span(START_MS + 1, START_MS + SLICE_MS))

    asyncio.run(main())


@pytest.mark.parametrize("path", [wire.OFFER, wire.PARTS, wire.LEAVES])
def test_what_costs_more_or_brings_something_is_among_brokers(served: Served, path: str) -> None:
    before = len(served.offered)
    with pytest.raises(TransientError, match="stranger"):
        served.line(CONSUMER).ask_now(BROKER.address, path, encode_page([served.records[0].canonical]))
    assert len(served.offered) == before


def test_a_consumer_finds_and_proves_what_the_first_broker_left_out(served: Served) -> None:
    line = served.line(CONSUMER)
    until_ms = START_MS + 2 * SLICE_MS
    given = [record for number, record in enumerate(served.records) if number not in (7, 300)]
    audit = audit_answer(
        partial(line.ask_now, BROKER.address),
        PART,
        START_MS,
        until_ms,
        [(record.message.timestamp_ms, record.leaf) for record in given],
    )
    assert list(audit.omitted) == [served.records[7], served.records[300]]
    assert audit.extra == ()
    assert audit.received_bytes < 32 * COUNT
    said = line.ask_now(BROKER.address, wire.CLAIM, wire.encode_range(PART, START_MS, until_ms))
    claim = decode_claim(said.body)
    verify_claim(claim, CONTEXT)
    assert (claim.count, claim.root) == (COUNT, compute_root([r.leaf for r in served.records]))
    leaves = [record.leaf for record in given]
    first = sign_claim(replace(claim, count=len(given), root=compute_root(leaves)), BROKER, CONTEXT)
    for record in audit.omitted:
        proof = build_omission(leaves, lambda number: given[number].canonical, record.canonical)
        assert verify_omission(proof, first, record.canonical) == record.message


def test_an_audit_of_nothing_left_out_says_so(served: Served) -> None:
    received = [(r.message.timestamp_ms, r.leaf) for r in served.records]
    ask = partial(served.line(CONSUMER).ask_now, BROKER.address)
    audit = audit_answer(ask, PART, START_MS, START_MS + 2 * SLICE_MS, received)
    assert (audit.omitted, audit.extra) == ((), ())
    assert audit.sent_bytes + audit.received_bytes < 2000
    more = [*received, (START_MS + 5, Digest(b"\xee" * 32))]
    assert audit_answer(ask, PART, START_MS, START_MS + 2 * SLICE_MS, more).extra == (Digest(b"\xee" * 32),)
