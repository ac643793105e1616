"""Statements: typed data that a wallet signs the same way, quorums, announcements, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests import paths
from tests.builders import a_key
from tests.wallet import hash_typed_data
from validator.protocol.codec.certificate import verify_quorum
from validator.protocol.codec.secp256k1 import HALF_ORDER
from validator.protocol.codec.statement import (
    MAX_HEADER_BYTES,
    SigningContext,
    decode_quorum,
    decode_statement,
    decode_upload,
    encode_quorum,
    encode_statement,
    encode_upload,
    sign_statement,
    sign_upload,
    statement_digest,
    upload_payload,
    verify_signatures,
    verify_statement,
    verify_upload,
)
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import (
    NIL,
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Root,
    Statement,
    StatementKind,
    StorageId,
    UploadAnnouncement,
    VoteQuorum,
)

VECTORS = json.loads((paths.VECTORS / "statement.json").read_text())
CONTEXT = SigningContext(31_337, Address(b"\x4d" * 20))
CONFIG, VALUE = Digest(b"\x0c" * 32), Digest(b"\x0f" * 32)
WINDOW = InstanceId(InstanceKind.WINDOW, 1_700_000_000_000)
KEYS = sorted((a_key(n) for n in range(1, 6)), key=lambda key: key.address)
COMMITTEE = tuple(key.address for key in KEYS)
ORDER = 2 * HALF_ORDER + 1


def a_statement(kind: StatementKind = StatementKind.PREVOTE, key: int = 0, **fields: Any) -> Statement:
    values = {"kind": kind, "config_digest": CONFIG, "instance": WINDOW, "round": 0, "value": VALUE, **fields}
    return sign_statement(Statement(signer=KEYS[key].address, **values), KEYS[key], CONTEXT)


def a_quorum(members: int = 3, kind: StatementKind = StatementKind.PRECOMMIT, **fields: Any) -> VoteQuorum:
    votes = [a_statement(kind, n, round=2) for n in range(members)]
    values: dict[str, Any] = {
        "kind": kind,
        "config_digest": CONFIG,
        "instance": WINDOW,
        "round": 2,
        "value": VALUE,
        "signatures": tuple((v.signer, v.signature) for v in votes),
    }
    return VoteQuorum(**{**values, **fields})


def an_upload(**fields: Any) -> UploadAnnouncement:
    values: dict[str, Any] = {
        "config_digest": CONFIG,
        "number": 5,
        "bundle_root": Root(b"\xb0" * 32),
        "storage_id": StorageId(b"\x5a" * 32),
        "owner": b"\x0e" * 32,
        "signer": KEYS[0].address,
    }
    return sign_upload(UploadAnnouncement(**{**values, **fields}), KEYS[0], CONTEXT)


def high_s(signature: bytes) -> bytes:
    """The other signature of the same message by the same key."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


# --- published bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["statements"], ids=lambda v: v["name"])
def test_a_statement_has_the_bytes_and_digest_of_the_vector_and_a_wallet_agrees(vector: dict[str, Any]) -> None:
    context = SigningContext(vector["chain_id"], Address(bytes.fromhex(vector["report_manager"])))
    statement = decode_statement(bytes.fromhex(vector["canonical"]))
    assert encode_statement(statement).hex() == vector["canonical"]
    assert statement_digest(statement, context).hex() == vector["digest"]
    assert hash_typed_data(vector["typed_data"]).hex() == vector["digest"]
    verify_statement(statement, context)


def test_a_quorum_and_an_announcement_have_the_bytes_of_the_vector() -> None:
    context = SigningContext(VECTORS["quorum"]["chain_id"], Address(bytes.fromhex(VECTORS["quorum"]["report_manager"])))
    quorum = decode_quorum(bytes.fromhex(VECTORS["quorum"]["canonical"]))
    assert encode_quorum(quorum).hex() == VECTORS["quorum"]["canonical"]
    verify_signatures(quorum, context)
    upload = decode_upload(bytes.fromhex(VECTORS["upload"]["canonical"]))
    assert encode_upload(upload).hex() == VECTORS["upload"]["canonical"]
    assert keccak256(upload_payload(upload, context)).hex() == VECTORS["upload"]["digest"]
    assert hash_typed_data(VECTORS["upload"]["typed_data"]).hex() == VECTORS["upload"]["digest"]
    verify_upload(upload, context)


# --- what a signature covers ----------------------------------------------------------------------


def test_every_field_and_the_place_where_it_counts_change_the_digest() -> None:
    statement = a_statement(StatementKind.PROPOSAL, round=4, valid_round=1)
    others = [
        replace(statement, kind=StatementKind.PREVOTE),
        replace(statement, config_digest=VALUE),
        replace(statement, instance=InstanceId(InstanceKind.LATE, WINDOW.number)),
        replace(statement, instance=InstanceId(InstanceKind.WINDOW, WINDOW.number + 1)),
        replace(statement, round=5),
        replace(statement, valid_round=-1),
        replace(statement, value=NIL),
    ]
    digests = {statement_digest(s, CONTEXT) for s in (statement, *others)}
    digests.add(statement_digest(statement, SigningContext(1, CONTEXT.report_manager)))
    digests.add(statement_digest(statement, SigningContext(31_337, Address(bytes(20)))))
    assert len(digests) == len(others) + 3


def test_prevote_and_precommit_of_the_same_content_are_signed_differently() -> None:
    precommit = a_statement(StatementKind.PRECOMMIT)
    with pytest.raises(MalformedInput):
        verify_statement(replace(precommit, kind=StatementKind.PREVOTE), CONTEXT)


def test_a_statement_is_signed_by_its_signer_only() -> None:
    with pytest.raises(InvariantError):
        sign_statement(replace(a_statement(), signer=KEYS[1].address), KEYS[0], CONTEXT)
    with pytest.raises(InvariantError):
        sign_upload(replace(an_upload(), signer=KEYS[1].address), KEYS[0], CONTEXT)


@pytest.mark.parametrize(
    "change",
    [high_s, lambda s: s[:64], lambda s: s[:64] + bytes([55 - s[64]]), lambda s: bytes(65), lambda s: b""],
    ids=["high s", "64 bytes", "other v", "zeros", "none"],
)
def test_a_damaged_signature_is_refused_everywhere(change: Callable[[bytes], bytes]) -> None:
    statement, upload, quorum = a_statement(), an_upload(), a_quorum()
    with pytest.raises(MalformedInput):
        verify_statement(replace(statement, signature=change(statement.signature)), CONTEXT)
    with pytest.raises(MalformedInput):
        verify_upload(replace(upload, signature=change(upload.signature)), CONTEXT)
    signer, signature = quorum.signatures[0]
    damaged = replace(quorum, signatures=((signer, change(signature)), *quorum.signatures[1:]))
    with pytest.raises(MalformedInput):
        verify_signatures(damaged, CONTEXT)


# --- quorums --------------------------------------------------------------------------------------


def test_a_quorum_of_distinct_members_for_one_content_is_genuine() -> None:
    verify_quorum(a_quorum(), CONFIG, WINDOW, COMMITTEE[:4], CONTEXT)
    verify_quorum(a_quorum(4), CONFIG, WINDOW, COMMITTEE[:4], CONTEXT)


def wrong_quorums() -> list[tuple[str, VoteQuorum]]:
    quorum = a_quorum()
    first, second, third = quorum.signatures
    other_round = a_statement(StatementKind.PRECOMMIT, 2, round=1)
    other_value = a_statement(StatementKind.PRECOMMIT, 2, round=2, value=NIL)
    other_kind = a_statement(StatementKind.PREVOTE, 2, round=2)
    stranger = a_key(99)
    foreign = sign_statement(
        replace(a_statement(StatementKind.PRECOMMIT, 2, round=2), signer=stranger.address), stranger, CONTEXT
    )
    return [
        ("one too few", replace(quorum, signatures=(first, second))),
        ("one signer twice", replace(quorum, signatures=(first, second, second))),
        ("not ascending", replace(quorum, signatures=(first, third, second))),
        ("another's signature", replace(quorum, signatures=(first, second, (third[0], second[1])))),
        ("mixed rounds", replace(quorum, signatures=(first, second, (third[0], other_round.signature)))),
        ("mixed values", replace(quorum, signatures=(first, second, (third[0], other_value.signature)))),
        ("mixed kinds", replace(quorum, signatures=(first, second, (third[0], other_kind.signature)))),
        ("another value", replace(quorum, value=NIL)),
        ("another round", replace(quorum, round=1)),
        ("another config", replace(quorum, config_digest=VALUE)),
        (
            "a stranger",
            replace(quorum, signatures=tuple(sorted([first, second, (foreign.signer, foreign.signature)]))),
        ),
    ]


@pytest.mark.parametrize(("name", "quorum"), wrong_quorums(), ids=[n for n, _ in wrong_quorums()])
def test_anything_less_than_a_quorum_for_one_content_is_refused(name: str, quorum: VoteQuorum) -> None:
    with pytest.raises(MalformedInput):
        verify_quorum(quorum, CONFIG, WINDOW, COMMITTEE[:4], CONTEXT)


def test_the_largest_committee_fits_a_certificate() -> None:
    signatures = tuple((Address(n.to_bytes(20, "big")), bytes(65)) for n in range(128))
    quorum = a_quorum(signatures=signatures)
    assert decode_quorum(encode_quorum(quorum)) == quorum


def test_the_encoder_sorts_signers() -> None:
    quorum = a_quorum()
    assert encode_quorum(replace(quorum, signatures=quorum.signatures[::-1])) == encode_quorum(quorum)


# --- wire -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        a_statement(StatementKind.OBSERVATION),
        a_statement(StatementKind.PROPOSAL, round=7),
        a_statement(StatementKind.PROPOSAL, round=7, valid_round=6),
        a_statement(StatementKind.PREVOTE, round=7, value=NIL),
        a_statement(StatementKind.PRECOMMIT, round=(1 << 31) - 1),
    ],
)
def test_statements_survive_their_bytes(statement: Statement) -> None:
    assert decode_statement(encode_statement(statement)) == statement


def rewritten(data: bytes, position: int, value: Any) -> bytes:
    fields = cbor2.loads(data)
    fields[position] = value
    return cbor2.dumps(fields)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, "statement/2"),
        (1, 5),
        (1, 0),
        (1, True),
        (2, bytes(31)),
        (3, 3),
        (4, -1),
        (4, 1 << 63),
        (5, -1),
        (5, 1 << 31),
        (6, 1),  # a prevote has no valid round
        (7, b""),
        (8, bytes(21)),
        (9, bytes(64)),
        (9, "x" * 65),
    ],
)
def test_a_statement_that_is_not_exactly_ours_is_refused(position: int, value: Any) -> None:
    with pytest.raises(MalformedInput):
        decode_statement(rewritten(encode_statement(a_statement()), position, value))


def test_rounds_that_contradict_each_other_are_refused() -> None:
    observation = encode_statement(a_statement(StatementKind.OBSERVATION))
    proposal = encode_statement(a_statement(StatementKind.PROPOSAL, round=3))
    for data in (rewritten(observation, 5, 1), rewritten(observation, 6, 1), rewritten(proposal, 6, 4)):
        with pytest.raises(MalformedInput):
            decode_statement(data)


@pytest.mark.parametrize(
    ("position", "value"),
    [(1, 1), (1, 2), (2, b""), (5, -1), (7, 5), (7, [[bytes(20)]]), (7, [5]), (7, [[bytes(20), bytes(64)]])],
)
def test_a_quorum_that_is_not_exactly_ours_is_refused(position: int, value: Any) -> None:
    with pytest.raises(MalformedInput):
        decode_quorum(rewritten(encode_quorum(a_quorum()), position, value))


def test_signers_that_are_unsorted_or_twice_are_refused_when_read() -> None:
    pairs = [list(pair) for pair in a_quorum().signatures]
    for signatures in (pairs[::-1], [pairs[0], pairs[0]]):
        with pytest.raises(MalformedInput):
            decode_quorum(rewritten(encode_quorum(a_quorum()), 7, signatures))


@pytest.mark.parametrize(
    ("position", "value"), [(0, "upload/2"), (2, -1), (3, bytes(31)), (4, bytes(33)), (5, b""), (6, 1), (7, bytes(66))]
)
def test_an_announcement_that_is_not_exactly_ours_is_refused(position: int, value: Any) -> None:
    with pytest.raises(MalformedInput):
        decode_upload(rewritten(encode_upload(an_upload()), position, value))


def test_header_and_certificates_travel_beside_what_is_signed() -> None:
    upload = replace(an_upload(), header=b'{"format":2}', certificates=(a_quorum(), a_quorum()))
    assert decode_upload(encode_upload(upload)) == upload
    assert upload_payload(upload, CONTEXT) == upload_payload(an_upload(), CONTEXT)
    assert encode_upload(replace(upload, header=b"", certificates=())) == encode_upload(an_upload())


@pytest.mark.parametrize(
    ("position", "value", "field"),
    [
        (8, "text", "header"),
        (8, bytes(MAX_HEADER_BYTES + 1), "header"),
        (9, b"no list", "certificates"),
        (9, [7], "certificates"),
        (9, [b"\x80"] * 4097, "certificates"),
        (9, [b"\x80"], "quorum"),
    ],
)
def test_what_travels_beside_an_announcement_is_bounded(position: int, value: Any, field: str) -> None:
    upload = replace(an_upload(), header=b"{}", certificates=(a_quorum(),))
    with pytest.raises(MalformedInput, match=field):
        decode_upload(rewritten(encode_upload(upload), position, value))
    with pytest.raises(MalformedInput, match="nothing in it"):
        decode_upload(rewritten(rewritten(encode_upload(upload), 8, b""), 9, []))


def test_an_announcement_of_another_id_is_not_the_signed_one() -> None:
    upload = an_upload()
    assert decode_upload(encode_upload(upload)) == upload
    with pytest.raises(MalformedInput):
        verify_upload(replace(upload, storage_id=StorageId(bytes(32))), CONTEXT)
