"""Every reason why a record from a broker or a peer is not taken, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.builders import GENESIS_MS, a_key, a_message, a_record, a_stream_id
from validator.ports.sources import Pull
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.message import make_record
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.signatures import VALID, sign_message, verify_message
from validator.protocol.consensus.proposal import Span
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    Address,
    ContentType,
    Message,
    MessageType,
    Reason,
    Record,
    SignatureType,
    StreamPart,
)
from validator.steps.admission import Checked, Refused, check_canonical, judge_record, read_record
from validator.steps.window_buffer import WindowBuffer

PART: StreamPart = (a_stream_id(), 0)
SPAN = Span(GENESIS_MS, GENESIS_MS + 1_000)
LIMIT = 2_000
A, B, C = (Address(bytes([i]) * 20) for i in (1, 2, 3))


def read(message: Message, form: str = "protobuf", *, part: StreamPart = PART, limit: int = LIMIT) -> Record:
    data = write_protobuf(message) if form == "protobuf" else write_legacy_array(message)
    return read_record(part, form, data, SPAN, limit)


def refusal(call: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.reason


def a_contract_record() -> Record:
    """Another key signs for a contract."""
    message = a_message(publisher_id=a_key(5).address)
    return make_record(sign_message(a_key(6), structs.replace(message, signature_type=SignatureType.ERC_1271)))


# --- from brokers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["protobuf", "array"])
def test_a_good_record_is_read_in_both_forms(form: str) -> None:
    record = a_record()
    assert read(record.message, form) == record


@pytest.mark.parametrize(
    ("data", "form"),
    [(b"", "protobuf"), (b"\xff" * 40, "protobuf"), (b"", "array"), (b"{}", "array"), (b"[32]", "array")],
)
def test_what_cannot_be_read_is_malformed(data: bytes, form: str) -> None:
    assert refusal(lambda: read_record(PART, form, data, SPAN, LIMIT)) is Reason.MALFORMED


def test_bytes_beyond_twice_the_limit_are_not_even_read() -> None:
    assert refusal(lambda: read_record(PART, "array", b"[" * (2 * LIMIT + 1), SPAN, LIMIT)) is Reason.TOO_LARGE


def test_a_message_is_too_large_from_one_byte_on() -> None:
    record = a_record()
    size = max(len(record.canonical), record.signed_bytes)
    assert read(record.message, limit=size) == record
    assert refusal(lambda: read(record.message, limit=size - 1)) is Reason.TOO_LARGE


@pytest.mark.parametrize("part", [(a_stream_id(2), 0), (a_stream_id(), 1)])
def test_a_record_of_another_stream_or_partition_than_was_asked_for_is_refused(part: StreamPart) -> None:
    assert refusal(lambda: read(a_message(), part=part)) is Reason.WRONG_STREAM


@pytest.mark.parametrize("timestamp_ms", [GENESIS_MS - 1, GENESIS_MS + 1_000])
def test_a_record_just_outside_the_window_is_refused(timestamp_ms: int) -> None:
    assert refusal(lambda: read(a_message(timestamp_ms=timestamp_ms))) is Reason.OUTSIDE_WINDOW


@pytest.mark.parametrize("timestamp_ms", [GENESIS_MS, GENESIS_MS + 999])
def test_a_record_just_inside_the_window_is_taken(timestamp_ms: int) -> None:
    assert read(a_message(timestamp_ms=timestamp_ms)).message.timestamp_ms == timestamp_ms


def test_key_exchange_is_not_stored() -> None:
    """A group key response without keys, in its shortest form."""
    message = a_message(
        message_type=MessageType.GROUP_KEY_RESPONSE,
        content_type=ContentType.BINARY,
        content=b"",
        signature_type=SignatureType.ECDSA_SECP256K1_EVM,
    )
    assert refusal(lambda: read(message)) is Reason.UNSUPPORTED_MESSAGE_TYPE


# --- what chain and signature say -------------------------------------------------------------------------


def judge(record: Record, *, permitted: bool = True, contract: bool | Exception = False) -> bool:
    def ask(_record: Record) -> bool:
        if isinstance(contract, Exception):
            raise contract
        return contract

    return judge_record(record, verify_message(record.message), lambda *_: permitted, ask)


def test_a_key_that_signed_needs_no_contract() -> None:
    assert verify_message(a_message()) is VALID
    assert judge(a_record(), contract=AssertionError("asked")) is False


def test_another_content_than_the_signed_one_is_a_bad_signature() -> None:
    forged = make_record(structs.replace(a_message(), content=b"[]"))
    assert refusal(lambda: judge(forged)) is Reason.BAD_SIGNATURE


def test_a_publisher_without_permission_is_refused_though_its_signature_holds() -> None:
    assert refusal(lambda: judge(a_record(), permitted=False)) is Reason.NOT_PERMITTED


def test_a_contracts_word_decides_on_its_signatures() -> None:
    record = a_contract_record()
    assert judge(record, contract=True) is True
    assert refusal(lambda: judge(record, contract=False)) is Reason.BAD_SIGNATURE
    assert refusal(lambda: judge(record, contract=True, permitted=False)) is Reason.NOT_PERMITTED


def test_a_contract_that_cannot_be_asked_is_no_answer() -> None:
    with pytest.raises(TransientError):
        judge(a_contract_record(), contract=TransientError("no source answers", reason="unavailable"))


@pytest.mark.parametrize("reason", ["disagreement", "foreign"])
def test_a_contract_without_one_answer_is_refused_alone(reason: str) -> None:
    """Foreign code may answer by its gas or its node, each time anew: no waiting would make one answer of it."""
    divided = TransientError("sources disagree", reason=reason)
    assert refusal(lambda: judge(a_contract_record(), contract=divided)) is Reason.ERC1271_UNKNOWN


# --- from peers -------------------------------------------------------------------------------------------


def from_peer(items: list[bytes], **changed: Any) -> Checked:
    arguments: dict[str, Any] = {
        "accepts": lambda r: r.message.timestamp_ms in SPAN,
        "permitted": lambda *_: True,
        "contract_check": lambda _: False,
        "message_limit": LIMIT,
        **changed,
    }
    return check_canonical(items, A, **arguments)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"\x80", Reason.MALFORMED),
        (a_record().canonical + b"\x00", Reason.MALFORMED),
        (bytes(LIMIT + 1), Reason.TOO_LARGE),
        (a_record(timestamp_ms=GENESIS_MS - 1).canonical, Reason.OUTSIDE_WINDOW),
        (make_record(structs.replace(a_message(), content=b"[]")).canonical, Reason.BAD_SIGNATURE),
        (a_contract_record().canonical, Reason.BAD_SIGNATURE),
    ],
)
def test_a_bad_message_of_a_peer_is_named_and_its_neighbours_are_taken(item: bytes, reason: Reason) -> None:
    good = a_record()
    checked = from_peer([good.canonical, item])
    assert list(checked.records.values()) == [good]
    assert [(found, sender) for _, found, sender, _ in checked.rejections] == [(reason.value, A)]


def test_what_a_contract_found_valid_is_listed() -> None:
    record = a_contract_record()
    checked = from_peer([record.canonical, a_record().canonical], contract_check=lambda _: True)
    assert checked.contract_signed == {record.signed_digest}


# --- what brokers served and missed -----------------------------------------------------------------------


def shares(served: dict[int, set[Address]], complete: set[Address]) -> dict[Address, tuple[int, int]]:
    """Shares in messages: which brokers served message i, and which answered completely."""
    messages = {i: a_message(timestamp_ms=GENESIS_MS + i) for i in served}
    size = make_record(messages[0]).signed_bytes
    pulls = [Pull(b, PART, complete=b in complete) for b in (A, B, C)]
    with WindowBuffer(Path("never-written"), [PART]) as buffer:
        for i, who in served.items():
            for broker in sorted(who):
                buffer.ingest(broker, PART, i, [write_protobuf(messages[i])], "protobuf")
        buffer.check(SPAN, lambda *_: True, lambda _: False, message_limit=LIMIT)
        assert sum(sum(page.signed_sizes) for page in buffer.merge()) == size * len(served)
        found = buffer.shares(pulls, [A, B, C], free="")
    return {s.broker: (s.served // size, s.missed // size) for s in found}


def test_missed_is_what_more_than_half_of_the_complete_brokers_served() -> None:
    assert shares({0: {A, B}, 1: {A}}, {A, B, C}) == {A: (2, 0), B: (1, 0), C: (0, 1)}


def test_exactly_half_is_not_more_than_half() -> None:
    assert shares({0: {A}}, {A, B}) == {A: (1, 0)}


def test_who_did_not_answer_completely_missed_what_the_others_agree_on_but_not_what_it_served() -> None:
    assert shares({0: {A, B}, 1: {A, B, C}}, {A, B}) == {A: (2, 0), B: (2, 0), C: (1, 1)}


def test_where_nobody_answered_completely_nobody_missed_anything() -> None:
    assert shares({0: {A}}, set()) == {A: (1, 0)}
