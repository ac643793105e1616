"""Trailers, cursors and login tokens: what is written is read, what is altered refused, and every field is bound."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from tests import paths
from tests.builders import a_key
from tests.wallet import Account, encode_typed_data
from validator.protocol.codec import cbor
from validator.protocol.codec.answer import (
    Answer,
    Claim,
    Cursor,
    Request,
    answer_payload,
    decode_answer,
    decode_cursor,
    encode_answer,
    encode_cursor,
    read_text,
    sign_answer,
    verify_answer,
    write_text,
)
from validator.protocol.codec.login import Login, check_login, read_login, sign_login, write_login
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest, Flag, Root

CONTEXT = SigningContext(31337, Address(b"\x09" * 20))
KEY = a_key(3)
REQUEST = Request("0x" + "11" * 20 + "/s", 4, 1_000, 9_000)
CURSOR = Cursor(7, 5_000, 3, b"\x01" * 20, "chain", Digest(b"\x02" * 32), REQUEST.digest())
ANSWER = Answer(
    REQUEST,
    encode_cursor(CURSOR),
    b"next",
    12,
    3_456,
    Root(b"\x03" * 32),
    7,
    8_000,
    Flag.VARIANTS,
    (Claim(Address(b"\x04" * 20), b"claim"), Claim(Address(b"\x05" * 20))),
    1_760_000_000_000,
    KEY.address,
)
OTHER: dict[str, Any] = {
    "request": Request(REQUEST.stream_id, 4, 1_000, 9_001),
    "after": b"",
    "next": b"",
    "count": 13,
    "signed_bytes": 0,
    "root": Root(bytes(32)),
    "as_of": None,
    "complete_to": 0,
    "flags": Flag(0),
    "claims": (),
    "time_ms": 1,
}


def test_a_trailer_is_read_as_it_was_written_and_its_signature_binds_every_field() -> None:
    signed = sign_answer(ANSWER, KEY, CONTEXT)
    assert decode_answer(encode_answer(signed)) == signed
    verify_answer(signed, CONTEXT)
    assert {*OTHER, "broker", "signature"} == {field.name for field in fields(Answer)}
    for name, value in OTHER.items():
        altered = replace(signed, **{name: value})
        assert answer_payload(altered, CONTEXT) != answer_payload(signed, CONTEXT), name
        with pytest.raises(MalformedInput):
            verify_answer(altered, CONTEXT)
    with pytest.raises(MalformedInput):
        verify_answer(signed, replace(CONTEXT, chain_id=1))


@pytest.mark.parametrize(
    ("position", "value"),
    [(0, 5), (1, 100), (5, bytes(4_000)), (8, bytes(31)), (9, -1), (11, 16), (12, [[bytes(19), b""]]), (15, b"")],
)
def test_a_trailer_of_another_shape_is_refused(position: int, value: Any) -> None:
    whole = cbor.decode(encode_answer(sign_answer(ANSWER, KEY, CONTEXT)), max_bytes=10_000)
    whole[position + 1] = value
    with pytest.raises(MalformedInput):
        decode_answer(cbor.encode(whole))


def test_a_cursor_is_for_its_request_alone() -> None:
    data = encode_cursor(CURSOR)
    assert decode_cursor(data, REQUEST) == CURSOR
    for other in (
        replace(REQUEST, until_ms=9_001),
        replace(REQUEST, partition=5),
        replace(REQUEST, stream_id="0x" + "11" * 20 + "/t"),
    ):
        with pytest.raises(MalformedInput, match="of another request"):
            decode_cursor(data, other)
    outside = encode_cursor(replace(CURSOR, timestamp_ms=9_000))
    with pytest.raises(MalformedInput, match="outside the span"):
        decode_cursor(outside, REQUEST)
    for broken in (b"", data[:-1], data + b"\0", b"\x80", cbor.encode_object("cursor/1")):
        with pytest.raises(MalformedInput, match="cursor: unknown"):
            decode_cursor(broken, REQUEST)


def test_text_has_one_form() -> None:
    for size in range(5):
        data = bytes(range(size))
        assert read_text(write_text(data), "x", max_bytes=10) == data
    for text in ("A", "AA==", "AB", "A+", "ä", "A" * 100):
        with pytest.raises(MalformedInput):
            read_text(text, "x", max_bytes=10)


NOW_MS = 1_760_000_000_000
LOGIN = Login(a_key(5).address, KEY.address, NOW_MS + 60_000, b"\x06" * 32)


def test_a_token_is_good_here_and_for_a_while() -> None:
    header = write_login(sign_login(LOGIN, a_key(5), CONTEXT))
    login = read_login(header)
    check_login(login, CONTEXT, KEY.address, NOW_MS)
    check_login(login, CONTEXT, KEY.address, NOW_MS + 120_000)
    for broker, now_ms, reason in (
        (a_key(6).address, NOW_MS, "another broker"),
        (KEY.address, NOW_MS + 200_000, "expired"),
        (KEY.address, NOW_MS - 3_700_000, "longer than 60 minutes"),
    ):
        with pytest.raises(MalformedInput, match=reason):
            check_login(login, CONTEXT, broker, now_ms)


def test_a_token_that_the_consumer_did_not_sign_is_refused() -> None:
    signed = sign_login(LOGIN, a_key(5), CONTEXT)
    for altered in (
        replace(signed, consumer=a_key(6).address),
        replace(signed, expiry_ms=signed.expiry_ms + 1),
        replace(signed, nonce=bytes(32)),
        sign_login(LOGIN, a_key(6), CONTEXT),
    ):
        with pytest.raises(MalformedInput):
            check_login(altered, CONTEXT, KEY.address, NOW_MS)
    for header in ("", "Basic eDp5", "LogStore", "LogStore AAAA", "LogStore " + "A" * 1000):
        with pytest.raises(MalformedInput):
            read_login(header)


VECTORS = json.loads((paths.VECTORS / "answer.json").read_text())


def test_vectors_are_what_is_written() -> None:
    request, cursor, trailer, login = (VECTORS[name] for name in ("request", "cursor", "trailer", "login"))
    assert request["digest"] == f"0x{REQUEST.digest().hex()}"
    assert cursor["canonical"] == f"0x{encode_cursor(CURSOR).hex()}"
    assert decode_cursor(read_text(cursor["text"], "cursor", max_bytes=2_000), REQUEST) == CURSOR
    signed = sign_answer(ANSWER, KEY, CONTEXT)
    assert trailer["canonical"] == f"0x{encode_answer(signed).hex()}"
    assert trailer["digest"] == f"0x{keccak256(answer_payload(ANSWER, CONTEXT)).hex()}"
    verify_answer(decode_answer(bytes.fromhex(trailer["canonical"][2:])), CONTEXT)
    told = read_login(login["header"])
    check_login(told, CONTEXT, told.broker, told.expiry_ms)
    assert write_login(sign_login(replace(told, signature=b""), KEY, CONTEXT)) == login["header"]


@pytest.mark.parametrize("name", ["trailer", "login"])
def test_another_implementation_of_typed_data_finds_the_same_signer(name: str) -> None:
    vector = VECTORS[name]
    message = encode_typed_data(vector["domain"], vector["types"], vector["message"])
    digest = keccak256(b"\x19\x01" + message.header + message.body)
    assert f"0x{digest.hex()}" == vector["digest"]
    assert Account.recover_message(message, signature=vector["signature"]).lower() == vector["signer"]
