"""Reports: vectors shared with the contract, compact signatures, canonical bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests import paths
from tests.builders import a_key, flip_s
from tests.compact_signature import expand_compact
from tests.contract_network import a_report
from validator.protocol.codec import cbor
from validator.protocol.codec.report import (
    MAX_AMOUNT,
    MAX_INDEX,
    compact_signature,
    decode_report,
    encode_report,
    is_conserved,
    pack_lines,
    pack_signatures,
    report_digest,
    report_values,
    sort_report,
)
from validator.protocol.codec.secp256k1 import HALF_ORDER, recover_address
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import NIL, Address, Digest
from validator.protocol.report import NodeLine, StreamLine

VECTORS = json.loads((paths.VECTORS / "report.json").read_text())["reports"]
MANAGER = Address(b"\x4d" * 20)
LOW = Address(b"\x01" * 20)


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_digest_signatures_and_bytes_are_those_of_the_vector(vector: dict[str, Any]) -> None:
    report = decode_report(bytes.fromhex(vector["canonical"]))
    digest = report_digest(report, vector["chain_id"], Address(bytes.fromhex(vector["report_manager"])))
    assert digest.hex() == vector["digest"]
    keys = [a_key(number) for number in vector["keys"]]
    bitmap, signatures = pack_signatures([k.address for k in keys], {k.address: k.sign(digest) for k in keys})
    assert (bitmap, signatures.hex()) == (vector["bitmap"], vector["signatures"])
    assert encode_report(report).hex() == vector["canonical"]


def test_the_order_of_lines_does_not_matter() -> None:
    report = a_report(next_committee=(Address(b"\1" * 20), Address(b"\2" * 20)), next_config_digest=Digest(b"\3" * 32))
    shuffled = replace(
        report,
        streams=report.streams[::-1],
        nodes=report.nodes[::-1],
        consumers=report.consumers[::-1],
        next_committee=report.next_committee[::-1],
    )
    assert shuffled != report
    assert sort_report(shuffled) == report
    assert encode_report(shuffled) == encode_report(report)
    assert report_values(shuffled) == report_values(report)
    assert report_digest(shuffled, 1, MANAGER) == report_digest(report, 1, MANAGER)


def test_a_line_that_appears_twice_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError, match="nodes has a line twice"):
        encode_report(a_report(nodes=(NodeLine(1, MANAGER, 1), NodeLine(2, MANAGER, 2))))


@pytest.mark.parametrize(
    "change",
    [
        {"config_digest": Digest(b"\1" * 32)},
        {"config_count": 1},
        {"number": 1},
        {"height": 1},
        {"block_hash": Digest(b"\1" * 32)},
        {"first_ms": 1},
        {"last_ms": 1},
        {"previous_root": b"\1" * 32},
        {"bundle_root": b"\1" * 32},
        {"storage_id": b"\1" * 32},
        {"uploader": MANAGER},
        {"ledger_root": b"\1" * 32},
        {"streams": ()},
        {"consumers": ()},
        {"nodes": ()},
        {"treasury": 1},
        {"next_committee": (MANAGER,)},
        {"next_config_digest": Digest(b"\1" * 32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_is_signed(change: dict[str, Any]) -> None:
    assert report_digest(a_report(**change), 1, MANAGER) != report_digest(a_report(), 1, MANAGER)


def test_chain_and_contract_are_signed() -> None:
    digests = {report_digest(a_report(), c, m) for c in (1, 137) for m in (MANAGER, Address(b"\4" * 20))}
    assert len(digests) == 4


def test_conservation_counts_every_line() -> None:
    assert is_conserved(a_report())
    assert not is_conserved(a_report(treasury=151))
    assert is_conserved(a_report(streams=(), consumers=(), nodes=(NodeLine(1, MANAGER, -5),), treasury=5))


def test_a_number_that_has_no_room_in_a_line_is_our_own_mistake() -> None:
    for line in (StreamLine(1 << 32, "a", 1, 1), StreamLine(1, "a", 1 << 96, 1), StreamLine(1, "a", 1, 1 << 64)):
        with pytest.raises(InvariantError, match="does not fit"):
            report_digest(a_report(streams=(line,)), 1, MANAGER)


def test_lines_are_packed_by_kind_and_index_with_the_sign_above_the_index() -> None:
    report = a_report(
        streams=(StreamLine(7, "a", 0x0102, 3),), consumers=(), nodes=(NodeLine(2, MANAGER, 5), NodeLine(1, LOW, -6))
    )
    assert pack_lines(report).hex() == (
        "0001"
        "0000"
        "0002"
        "00000007"
        + "0102".rjust(24, "0")
        + "03".rjust(16, "0")
        + "80000001"
        + "06".rjust(24, "0")
        + "00000002"
        + "05".rjust(24, "0")
    )


# --- signatures -----------------------------------------------------------------------------------


def test_a_compact_signature_expands_to_what_it_was() -> None:
    for number in range(1, 20):
        digest = Digest(bytes([number]) * 32)
        signature = a_key(number).sign(digest)
        compact = compact_signature(signature)
        assert len(compact) == 64
        assert expand_compact(compact) == signature
        assert recover_address(digest, expand_compact(compact)) == a_key(number).address


def test_signatures_that_the_contract_refuses_are_refused_here() -> None:
    good = a_key().sign(NIL)
    high = flip_s(good)
    assert recover_address(NIL, high) == a_key().address
    for bad in (good[:64], good + b"\0", good[:64] + b"\0", good[:64] + b"\x1d", high):
        with pytest.raises(MalformedInput, match="signature"):
            compact_signature(bad)
    for bad in (good, b"", good[:32] + (HALF_ORDER + 1).to_bytes(32, "big")):
        with pytest.raises(MalformedInput, match="signature"):
            expand_compact(bad)


def test_the_first_quorum_in_ascending_order_is_packed() -> None:
    keys = sorted((a_key(i) for i in range(1, 8)), key=lambda k: k.address)
    committee = [k.address for k in keys]
    signed = {k.address: k.sign(NIL) for k in (*keys[1:], a_key(99))}
    bitmap, signatures = pack_signatures(committee[::-1], signed)
    assert bitmap == 0b0111110
    assert signatures == b"".join(compact_signature(k.sign(NIL)) for k in keys[1:6])
    with pytest.raises(MalformedInput, match="4 of the 5"):
        pack_signatures(committee, {k.address: k.sign(NIL) for k in keys[:4]})
    with pytest.raises(MalformedInput, match="signatures"):
        pack_signatures([], {})


# --- canonical bytes ------------------------------------------------------------------------------


def _fields() -> list[Any]:
    return cbor.decode(encode_report(a_report()), max_bytes=10_000)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [
        (1, b"\1" * 31, "config_digest"),
        (2, -1, "config_count"),
        (3, -1, "number"),
        (3, True, "number"),
        (6, b"", "first_ms"),
        (11, b"\1" * 32, "uploader"),
        (13, {}, None),
        (13, [["a", b"\1", 1]], "streams"),
        (13, [[1, "a", b"\1"]], "streams"),
        (13, [[0, "a", b"\1", 1]], "streams"),
        (13, [[1 << 31, "a", b"\1", 1]], "streams"),
        (13, [[1, "", b"\1", 1]], "streams"),
        (13, [[1, "a" * 257, b"\1", 1]], "streams"),
        (13, [[1, "a", b"\0\1", 1]], "streams"),
        (13, [[1, "a", b"\1" * 13, 1]], "streams"),
        (13, [[2, "a", b"\1", 1], [1, "b", b"\1", 1]], "streams"),
        (13, [[1, "a", b"\1", 1], [1, "b", b"\1", 1]], "streams"),
        (13, [[1, "a", b"\1", 1], [2, "a", b"\1", 1]], "streams"),
        (13, [[i, str(i), b"", 1] for i in range(1, 1026)], "streams"),
        (14, [[1, b"\1" * 19, b"\1", 1]], "consumers"),
        (15, [[1, b"\1" * 20, True, b""]], "nodes"),
        (15, [[1, b"\1" * 20, 1, b"\1"]], "nodes"),
        (16, 5, "treasury"),
        (17, [b"\2" * 20, b"\1" * 20], "next_committee"),
        (17, [i.to_bytes(20, "big") for i in range(33)], "next_committee"),
    ],
)
def test_a_field_out_of_shape_is_refused_by_name(at: int, value: Any, field: str | None) -> None:
    fields = _fields()
    fields[at] = value
    if field is None:
        with pytest.raises(TypeError):
            cbor.encode(fields)
        return
    with pytest.raises(MalformedInput) as caught:
        decode_report(cbor.encode(fields))
    assert caught.value.field.startswith(field)


def test_other_kinds_lengths_and_trailing_bytes_are_refused() -> None:
    data = encode_report(a_report())
    fields = _fields()
    for bad in (data + b"\0", data[:-1], b"", cbor.encode(fields[:-1]), cbor.encode(["report/1", *fields[1:]])):
        with pytest.raises(MalformedInput):
            decode_report(bad)


def test_the_largest_amounts_survive() -> None:
    report = a_report(
        streams=(StreamLine(1, "a", MAX_AMOUNT, (1 << 64) - 1),),
        nodes=(NodeLine(MAX_INDEX, MANAGER, -MAX_AMOUNT),),
        treasury=0,
    )
    assert decode_report(encode_report(report)) == report
