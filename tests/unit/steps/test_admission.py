"""Checks on entry: sizes, and whom the chain is asked about."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.builders import GENESIS_MS, a_key, a_message, a_record
from tests.fakes.held_pulls import HeldPull
from tests.plain_collecting import check_pulls
from validator.ports.sources import PulledRecord
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.consensus.proposal import Span
from validator.protocol.model import Address, NewGroupKey, Reason, SignatureType
from validator.steps.admission import Checked, Row, WindowCheck, check_canonical

SENDER = Address(b"\x01" * 20)
SPAN = Span(GENESIS_MS, GENESIS_MS + 1_000)
RECORD = a_record(
    signature_type=SignatureType.ECDSA_SECP256K1_LEGACY, new_group_key=NewGroupKey("key", bytes(range(256)))
)
"""A rotated key is signed as hex text: more bytes are signed than stored."""


def from_peer(limit: int) -> Checked:
    return check_canonical(
        [RECORD.canonical], SENDER, lambda _: True, lambda *_: True, lambda _: False, message_limit=limit
    )


def from_broker(limit: int) -> Checked:
    data = write_legacy_array(RECORD.message)
    part = RECORD.message.stream_part
    pull = HeldPull(SENDER, part, complete=True, records=(PulledRecord(SENDER, 0, data, "array"),))
    return check_pulls([pull], SPAN, lambda *_: True, lambda _: False, message_limit=limit)


@pytest.mark.parametrize("check", [from_peer, from_broker])
def test_a_message_is_too_large_by_its_signed_bytes_alone_wherever_it_comes_from(
    check: Callable[[int], Checked],
) -> None:
    assert RECORD.signed_bytes > len(RECORD.canonical)
    assert list(check(RECORD.signed_bytes).records.values()) == [RECORD]
    refused = check(RECORD.signed_bytes - 1)
    assert not refused.records
    assert [reason for _, reason, _, _ in refused.rejections] == [Reason.TOO_LARGE.value]


def test_the_chain_is_not_asked_about_publishers_who_signed_nothing() -> None:
    asked: list[bytes] = []
    good = a_message(content=b"good")
    forged = replace(a_message(a_key(5), stream_id=good.stream_id), content=b"forged")

    def permitted(_stream_id: str, publisher: bytes) -> bool:
        asked.append(publisher)
        return True

    rows: list[Row] = []
    checks = WindowCheck(SPAN, permitted, lambda _: False, message_limit=1 << 20)
    lines = [write_legacy_array(good), write_legacy_array(forged)]
    refused = checks.check(good.stream_part, "array", lines, rows, 3, 70)
    assert asked == [good.publisher_id]
    assert [(row[0], row[-1]) for row in rows] == [(3, 70)]
    assert [(serial, refusal.reason) for serial, refusal in refused] == [(71, Reason.BAD_SIGNATURE)]
