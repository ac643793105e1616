"""Whatever a report holds: its bytes come back, and no other bytes are taken for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.contract_network import a_report
from validator.protocol.codec.report import (
    MAX_AMOUNT,
    MAX_INDEX,
    decode_report,
    encode_report,
    report_digest,
    sort_report,
)
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Digest
from validator.protocol.report import ConsumerLine, NodeLine, Report, StreamLine

addresses = st.binary(min_size=20, max_size=20).map(Address)
amounts = st.integers(0, MAX_AMOUNT)
sizes = st.integers(0, (1 << 64) - 1)
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    streams = draw(st.dictionaries(ids, st.tuples(amounts, sizes), max_size=5))
    consumers = draw(st.dictionaries(addresses, st.tuples(amounts, sizes), max_size=4))
    nodes = draw(st.dictionaries(addresses, st.integers(-MAX_AMOUNT, MAX_AMOUNT), max_size=4))
    indices = draw(st.lists(st.integers(1, MAX_INDEX), unique=True, min_size=5, max_size=5))
    return a_report(
        config_count=draw(st.integers(0, (1 << 32) - 1)),
        number=draw(sizes),
        streams=tuple(StreamLine(i, k, *v) for i, (k, v) in zip(indices, streams.items(), strict=False)),
        consumers=tuple(ConsumerLine(i, k, *v) for i, (k, v) in zip(indices, consumers.items(), strict=False)),
        nodes=tuple(NodeLine(i, k, v) for i, (k, v) in zip(indices, nodes.items(), strict=False)),
        treasury=draw(amounts),
        next_committee=tuple(draw(st.lists(addresses, unique=True, max_size=4))),
        next_config_digest=Digest(draw(st.binary(min_size=32, max_size=32))),
    )


@given(report=reports())
def test_a_report_comes_back_from_its_bytes(report: Report) -> None:
    assert decode_report(encode_report(report)) == sort_report(report)


@given(report=reports(), data=st.data())
def test_the_order_of_lines_never_changes_what_is_signed(report: Report, data: Any) -> None:
    manager = Address(b"\1" * 20)
    shuffled = replace(
        report,
        streams=tuple(data.draw(st.permutations(report.streams))),
        nodes=tuple(data.draw(st.permutations(report.nodes))),
    )
    assert report_digest(shuffled, 1, manager) == report_digest(report, 1, manager)


@given(report=reports(), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_is_another_report(report: Report, at: int, bit: int) -> None:
    data = bytearray(encode_report(report))
    data[at % len(data)] ^= 1 << bit
    try:
        decoded = decode_report(bytes(data))
    except MalformedInput:
        return
    assert decoded != sort_report(report)
    assert encode_report(decoded) == bytes(data)


@given(data=st.binary(max_size=200))
def test_bytes_of_strangers_raise_nothing_but_malformed_input(data: bytes) -> None:
    try:
        decode_report(data)
    except MalformedInput:
        return
    raise AssertionError("200 random bytes are no report")
