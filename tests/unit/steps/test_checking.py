"""Checks on entry of single messages: sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import GENESIS_MS, a_record
from tests.plain_collecting import check_pulls
from validator.codec.legacy_array import write_legacy_array
from validator.consensus.proposal import Span
from validator.model import Address, NewGroupKey, Reason, SignatureType
from validator.ports import Pull, PulledRecord
from validator.steps.checking import Checked, check_canonical

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
    pull = Pull(SENDER, part, (PulledRecord(SENDER, 0, data, "array"),), complete=True)
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
