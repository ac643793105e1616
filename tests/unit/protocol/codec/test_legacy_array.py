from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from tests.builders import CHAIN_ID, GENESIS_MS, a_key, a_message, a_stream_id
from validator.protocol.codec.legacy_array import MAX_LINE_BYTES, read_legacy_array, write_legacy_array
from validator.protocol.codec.message import make_record
from validator.protocol.codec.message_rules import reason_of
from validator.protocol.codec.payload import digest_of_payload, signature_payload, signed_digest
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Reason,
    SignatureType,
)


def array_of(message: Message | None = None) -> list[Any]:
    value = json.loads(write_legacy_array(message or a_message(prev=MessageRef(GENESIS_MS - 1, 0))))
    assert isinstance(value, list)
    return value


def dump(array: list[Any]) -> bytes:
    return json.dumps(array, ensure_ascii=False, separators=(",", ":")).encode()


def signed_array(array: list[Any]) -> bytes:
    """Sign the text of the elements as the old clients do, whatever it is."""
    (stream, partition, time, sequence, publisher, chain), prev = array[1], array[2]
    head = f"{stream}{partition}{time}{sequence}{publisher}{chain}" + ("" if prev is None else f"{prev[0]}{prev[1]}")
    text = f"{head}{array[7]}{array[8] or ''}".encode()
    array[10] = "0x" + a_key().sign(digest_of_payload(SignatureType.ARRAY_ETH, text)).hex()
    return dump(array)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prev": MessageRef(GENESIS_MS - 5, 3), "sequence_number": 2, "partition": 99},
        {"content": '"ü😀\u2028\\n"'.encode()},
        {"content": b"\x00\x1f\x7f not JSON"},
        {"encryption_type": EncryptionType.AES, "group_key_id": "k", "content": bytes(range(40))},
        {"group_key_id": "", "new_group_key": NewGroupKey('ü"\x01\\', b"\x01\x02")},
        {"msg_chain_id": "", "timestamp_ms": 0},
        {"msg_chain_id": "\u2028\u0085\x00"},
        {"content": b"\xef\xbb\xbf{}", "signature_type": SignatureType.ARRAY_ETH},
        {"signature_type": SignatureType.ARRAY_ETH_LEGACY},
        {"signature_type": SignatureType.ARRAY_ETH, "message_type": MessageType.GROUP_KEY_RESPONSE},
        {"signature_type": SignatureType.ARRAY_ETH, "new_group_key": NewGroupKey("", b'["k", "ab"]')},
    ],
)
def test_what_is_written_is_read_again_and_valid(fields: dict[str, Any]) -> None:
    message = a_message(**fields)
    line = write_legacy_array(message)
    assert b"\n" not in line
    assert read_legacy_array(line) == message
    assert verify_message(read_legacy_array(line)) is VALID


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (7, "\ufeff{}"),
        (8, '["id", "ab"]'),
        (8, '["id","AB"]'),
        (8, '["id","abc"]'),
        (8, '["\\u0069d","ab"]'),
        (8, '["\\ud800","ab"]'),
    ],
)
def test_a_text_that_conversion_would_change_stays_as_it_was_signed(position: int, value: str) -> None:
    array = array_of()
    array[position] = value
    message = read_legacy_array(signed_array(array))
    assert message.signature_type is SignatureType.ARRAY_ETH
    assert verify_message(message) is VALID
    assert read_legacy_array(write_legacy_array(message)) == message


@pytest.mark.parametrize("content", ["ABCD", "abc", '{"a":1}', "ab cd"])
def test_ciphertext_that_is_no_lower_case_hex_stays_text(content: str) -> None:
    array = array_of()
    array[5], array[6], array[7] = 2, "key", content
    message = read_legacy_array(signed_array(array))
    assert (message.signature_type, message.content) == (SignatureType.ARRAY_ETH, content.encode())
    assert verify_message(message) is VALID


def test_exact_conversion_keeps_payload_and_digest() -> None:
    array = array_of()
    array[5], array[6], array[7], array[8] = 2, "key", "00ff", '["ü","ab"]'
    message = read_legacy_array(signed_array(array))
    as_signed = replace(
        message,
        signature_type=SignatureType.ARRAY_ETH,
        content=b"00ff",
        new_group_key=NewGroupKey("", '["ü","ab"]'.encode()),
    )
    assert message.signature_type is SignatureType.ECDSA_SECP256K1_LEGACY
    assert (message.content, message.new_group_key) == (b"\x00\xff", NewGroupKey("ü", b"\xab"))
    assert signature_payload(message) == signature_payload(as_signed)
    assert signed_digest(message) == signed_digest(as_signed)
    with pytest.raises(MalformedInput, match="converts exactly"):
        make_record(as_signed)


def test_outer_form_and_letter_case_are_normalised() -> None:
    message = a_message()
    array = array_of(message)
    array[1][4] = "0x" + array[1][4][2:].upper()
    array[1][0] = "0x" + a_stream_id()[2:42].upper() + a_stream_id()[42:]
    array[10] = array[10][2:].upper()
    spaced = json.dumps(array, indent=2).encode()
    assert read_legacy_array(spaced) == read_legacy_array(dump(array)) == message


def test_lone_surrogates_are_read_as_they_are_signed() -> None:
    message = a_message(msg_chain_id="a\ufffdb", content="\ufffd\U0001f600\ufffd\ufffd".encode())
    line = write_legacy_array(message)
    escaped = line.replace("a\ufffdb".encode(), b"a\\udC00b").replace(
        "\ufffd\U0001f600\ufffd\ufffd".encode(), b"\\ud800\\ud83d\\ude00\\udbff\\udbff"
    )
    assert escaped != line
    assert read_legacy_array(escaped) == message
    assert verify_message(message) is VALID


def test_an_escaped_backslash_before_u_is_text() -> None:
    message = a_message(content=rb'{"a":"\\ud800"}')
    assert read_legacy_array(write_legacy_array(message)) == message
    with_real_one = write_legacy_array(message).replace(CHAIN_ID.encode(), rb"\ud800")
    assert read_legacy_array(with_real_one).content == message.content


@pytest.mark.parametrize(("version", "elements"), [(31, (0, 1, 2, 3, 5, 7, 9, 10)), (30, (0, 1, 2, 3, 7, 9, 10))])
@pytest.mark.parametrize("kind", [SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ARRAY_ETH_LEGACY])
def test_older_versions_are_read(version: int, elements: tuple[int, ...], kind: SignatureType) -> None:
    message = a_message(signature_type=kind)
    array = array_of(message)
    older = [array[i] for i in elements]
    older[0] = version
    assert read_legacy_array(dump(older)) == message
    assert verify_message(read_legacy_array(dump(older))) is VALID


@pytest.mark.parametrize(
    ("position", "value", "field", "verdict"),
    [
        (0, 33, "version", Reason.MALFORMED),
        (0, "32", "version", Reason.MALFORMED),
        (0, 32.0, "version", Reason.MALFORMED),
        (1, None, "message_id", Reason.MALFORMED),
        (1, [], "message_id", Reason.MALFORMED),
        (1, {}, "message_id", Reason.MALFORMED),
        ((1, 0), None, "stream_id", Reason.MALFORMED),
        ((1, 0), "", "stream_id", Reason.MALFORMED),
        ((1, 0), "/x", "stream_id", Reason.MALFORMED),
        ((1, 0), "s" * 257, "stream_id", Reason.TOO_LARGE),
        ((1, 1), "0", "partition", Reason.MALFORMED),
        ((1, 1), 100, "partition", Reason.PARTITION_OUT_OF_RANGE),
        ((1, 1), -1, "partition", Reason.PARTITION_OUT_OF_RANGE),
        ((1, 1), True, "partition", Reason.MALFORMED),
        ((1, 2), 1.5, "timestamp", Reason.MALFORMED),
        ((1, 2), float(GENESIS_MS), "timestamp", Reason.MALFORMED),
        ((1, 2), 2**53, "timestamp", Reason.MALFORMED),
        ((1, 2), 10**40, "timestamp", Reason.MALFORMED),
        ((1, 2), str(GENESIS_MS), "timestamp", Reason.MALFORMED),
        ((1, 3), None, "sequence_number", Reason.MALFORMED),
        ((1, 3), 2**31, "sequence_number", Reason.MALFORMED),
        ((1, 4), "0x00", "publisher_id", Reason.MALFORMED),
        ((1, 4), "0X" + "ab" * 20, "publisher_id", Reason.MALFORMED),
        ((1, 4), "0x" + "ab" * 20 + "\n", "publisher_id", Reason.MALFORMED),
        ((1, 4), "0x" + "٣" * 40, "publisher_id", Reason.MALFORMED),
        ((1, 5), None, "msg_chain_id", Reason.MALFORMED),
        ((1, 5), "c" * 257, "msg_chain_id", Reason.TOO_LARGE),
        (2, False, "prev", Reason.MALFORMED),
        (2, 0, "prev", Reason.MALFORMED),
        (2, "", "prev", Reason.MALFORMED),
        (2, [], "prev", Reason.MALFORMED),
        (2, [1], "prev", Reason.MALFORMED),
        (2, [1, "2"], "prev.sequence_number", Reason.MALFORMED),
        (2, [1, 2, 3], "prev", Reason.MALFORMED),
        (2, [GENESIS_MS, 0], "prev", Reason.MALFORMED),
        (3, 30, "message_type", Reason.UNSUPPORTED_MESSAGE_TYPE),
        (3, "27", "message_type", Reason.MALFORMED),
        (4, "JSON", "content_type", Reason.MALFORMED),
        (4, 1, "content_type", Reason.MALFORMED),
        (5, 1, "encryption_type", Reason.MALFORMED),
        (5, 3, "encryption_type", Reason.MALFORMED),
        (5, 2, "group_key_id", Reason.MALFORMED),
        (6, 5, "group_key_id", Reason.MALFORMED),
        (6, "k" * 257, "group_key_id", Reason.TOO_LARGE),
        (7, "", "content", Reason.MALFORMED),
        (7, {"a": 1}, "content", Reason.MALFORMED),
        (7, None, "content", Reason.MALFORMED),
        (8, "", "new_group_key", Reason.MALFORMED),
        (8, ["k", "ab"], "new_group_key", Reason.MALFORMED),
        (8, '["k"]', "new_group_key", Reason.MALFORMED),
        (8, '["k",5]', "new_group_key", Reason.MALFORMED),
        (8, '["k","' + "ab" * 2000 + '"]', "new_group_key", Reason.TOO_LARGE),
        (9, 0, "signature_type", Reason.UNSIGNED),
        (9, 3, "signature_type", Reason.UNKNOWN_SIGNATURE_TYPE),
        (9, "2", "signature_type", Reason.MALFORMED),
        (10, None, "signature", Reason.UNSIGNED),
        (10, "", "signature", Reason.UNSIGNED),
        (10, "0x" + "ab" * 65 + "x", "signature", Reason.BAD_SIGNATURE),
        (10, "0x" + "ab" * 65 + "a", "signature", Reason.BAD_SIGNATURE),
        (10, "0x" + "ab cd", "signature", Reason.BAD_SIGNATURE),
        (10, "0xüü", "signature", Reason.BAD_SIGNATURE),
    ],
)
def test_what_is_not_exactly_the_format_is_refused_by_name(
    position: int | tuple[int, int], value: object, field: str, verdict: Reason
) -> None:
    array = array_of()
    if isinstance(position, tuple):
        array[position[0]][position[1]] = value
    else:
        array[position] = value
    with pytest.raises(MalformedInput) as refusal:
        read_legacy_array(dump(array))
    assert refusal.value.field == field
    assert reason_of(refusal.value) is verdict


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"[32]",
        b"[32,",
        b"{}",
        b'"[32]"',
        b"[" * 100_000,
        b"[32," + b"[" * 100_000,
        b"[32," + b"1" * 5000 + b"]",
        b"[NaN]",
        b"[-32]",
        b"\xff\xfe",
        b"[32,\xff]",
        b'[32,["\\ud800"]]',
        b'[32,["\\u12"]]',
        b"[31]",
        b"[30,[],null]",
        bytes(1000),
        b"[999999999999]",
    ],
)
def test_other_bytes_are_refused_without_a_crash(line: bytes) -> None:
    with pytest.raises(MalformedInput):
        read_legacy_array(line)


def test_extra_elements_junk_and_trailing_bytes_are_refused() -> None:
    line = write_legacy_array(a_message())
    for other in (line[:-1] + b",null]", line + b"x", line[:-1], line + line):
        with pytest.raises(MalformedInput):
            read_legacy_array(other)


def test_a_line_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(MalformedInput) as refusal:
        read_legacy_array(b" " * (MAX_LINE_BYTES + 1))
    assert reason_of(refusal.value) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("signature_type", {"signature_type": SignatureType.ECDSA_SECP256K1_EVM}),
        ("content_type", {"content_type": ContentType.BINARY}),
        ("content", {"content": b""}),
        ("stream_id", {"stream_id": "A.eth/x"}),
    ],
)
def test_a_message_without_array_form_is_not_written(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedInput) as refusal:
        write_legacy_array(a_message(**fields))
    assert refusal.value.field == field
