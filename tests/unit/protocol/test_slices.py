"""Sums, heartbeats and claims equal those of another implementation; whatever has another form is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from tests import paths
from validator.protocol.codec.heartbeat import (
    MAX_HEARTBEAT_BYTES,
    RECENT_MS,
    Heartbeat,
    heartbeat_of,
    parse_heartbeat,
    write_heartbeat,
)
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import publish_message
from validator.protocol.codec.slice_claim import (
    SliceClaim,
    claim_payload,
    decode_claim,
    encode_claim,
    sign_claim,
    verify_claim,
)
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import EMPTY_ROOT, keccak256
from validator.protocol.model import Address, EncryptionType, Root
from validator.protocol.slices import (
    BLOCK_MS,
    SLICE_MS,
    PartSum,
    Sum,
    check_below,
    check_parts,
    closed_until,
    cut,
    empty_total,
    sum_messages,
    sum_parts,
    sum_spans,
)

VECTORS = json.loads((paths.VECTORS / "slices.json").read_text())
GENESIS = int(VECTORS["slices"][0]["start_ms"])
BROKER = SigningKey(b"\x12" * 32)
CONTEXT = SigningContext(31337, Address(b"\x33" * 20))
SYSTEM = "0x" + "44" * 20 + "/system"


def hexed(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def part_sums(case: dict[str, Any]) -> list[PartSum]:
    sums = []
    for part in case["parts"]:
        leaves = [hashlib.sha256(f"{part['leaves_of']}{i}".encode()).digest() for i in range(part["count"])]
        sums.append(sum_messages((part["stream_id"], part["partition"]), leaves))
    return sums


def slice_sums() -> dict[int, Sum]:
    return {
        int(case["start_ms"]): sum_parts(int(case["start_ms"]), reversed(part_sums(case))) for case in VECTORS["slices"]
    }


def total_of(from_ms: int, until_ms: int, slices: dict[int, Sum]) -> Sum:
    below = [
        slices.get(start, empty_total(start, start + length))
        if length == SLICE_MS
        else total_of(start, start + length, slices)
        for start, length in cut(from_ms, until_ms)
    ]
    return sum_spans(from_ms, until_ms - from_ms, reversed(below))


@pytest.mark.parametrize("case", VECTORS["slices"], ids=lambda c: c["start_ms"])
def test_a_slice_is_summed_as_by_another_implementation(case: dict[str, Any]) -> None:
    sums = part_sums(case)
    assert [(s.count, s.root) for s in sums] == [(p["count"], hexed(p["root"])) for p in case["parts"]]
    whole = sum_parts(int(case["start_ms"]), sums)
    assert (whole.count, whole.root) == (case["count"], hexed(case["root"]))
    check_parts(whole, [s for s in sums if s.count])


@pytest.mark.parametrize("case", VECTORS["ranges"], ids=lambda c: f"{c['from_ms']}-{c['until_ms']}")
def test_a_range_is_cut_and_summed_as_by_another_implementation(case: dict[str, Any]) -> None:
    from_ms, until_ms = int(case["from_ms"]), int(case["until_ms"])
    assert cut(from_ms, until_ms) == [(int(start), length) for start, length in case["nodes"]]
    total = total_of(from_ms, until_ms, slice_sums())
    assert (total.count, total.root) == (case["count"], hexed(case["root"]))


@pytest.mark.parametrize("case", VECTORS["heartbeats"], ids=lambda c: str(len(c["urls"])))
def test_a_heartbeat_is_written_and_read_as_by_another_implementation(case: dict[str, Any]) -> None:
    heartbeat = parse_heartbeat(case["content"].encode())
    assert heartbeat is not None
    assert write_heartbeat(heartbeat) == case["content"].encode()
    assert list(heartbeat.urls) == case["urls"]
    recent = heartbeat.recent
    assert [str(recent.start_ms), str(recent.end_ms), str(recent.count), f"0x{recent.root.hex()}"] == case["recent"]


@pytest.mark.parametrize("case", VECTORS["claims"], ids=lambda c: c["stream_id"])
def test_a_claim_is_signed_as_by_another_implementation(case: dict[str, Any]) -> None:
    key, context = SigningKey(hexed(case["secret"])), SigningContext(case["chain_id"], Address(b"\x33" * 20))
    claim = SliceClaim(
        key.address,
        (case["stream_id"], case["partition"]),
        int(case["from_ms"]),
        int(case["until_ms"]),
        case["count"],
        Root(hexed(case["root"])),
        int(case["time_ms"]),
    )
    assert keccak256(claim_payload(claim, context)) == hexed(case["digest"])
    signed = sign_claim(claim, key, context)
    assert signed.signature == hexed(case["signature"])
    verify_claim(signed, context)
    assert decode_claim(encode_claim(signed)) == signed
    with pytest.raises(MalformedInput):
        verify_claim(replace(signed, count=signed.count + 1), context)
    with pytest.raises(InvariantError):
        sign_claim(claim, BROKER, context)


def test_a_claim_of_another_form_is_refused() -> None:
    claim = SliceClaim(BROKER.address, ("s", 0), 0, 10, 1, Root(b"\x01" * 32), 5, bytes(65))
    assert decode_claim(encode_claim(claim)) == claim
    for wrong in (
        replace(claim, until_ms=10, from_ms=11),
        replace(claim, count=0),
        replace(claim, root=EMPTY_ROOT),
        replace(claim, part=("", 0)),
        replace(claim, part=("s" * 257, 0)),
        replace(claim, part=("s", 1 << 32)),
        replace(claim, count=1 << 63),
        replace(claim, signature=bytes(64)),
    ):
        with pytest.raises(MalformedInput):
            decode_claim(encode_claim(wrong))


def a_heartbeat() -> Heartbeat:
    parsed = parse_heartbeat(VECTORS["heartbeats"][1]["content"].encode())
    assert parsed is not None
    return parsed


def other_forms() -> list[bytes]:
    text = write_heartbeat(a_heartbeat())
    good: list[Any] = json.loads(text)
    recent, kept = good[4], good[5]
    changed: list[Any] = [
        [1, *good[1:]],
        [2, 8, *good[2:]],
        good[:-1],
        [*good, 1],
        {"heartbeat": good},
        [*good[:2], good[2][0], *good[3:]],
        [*good[:2], ["ftp://x"], *good[3:]],
        [*good[:2], ['http://a"b'], *good[3:]],
        [*good[:2], ["http://a\\b"], *good[3:]],
        [*good[:2], ["http://" + "a" * 250], *good[3:]],
        [*good[:2], ["http://a"] * 5, *good[3:]],
        [*good[:3], [7, good[3][1]], *good[4:]],
        [*good[:3], [str(1 << 63), good[3][1]], *good[4:]],
        [*good[:3], ["07", good[3][1]], *good[4:]],
        [*good[:4], [recent[0], recent[1], recent[2], recent[3].upper()], kept],
        [*good[:4], [recent[0], recent[1], "-1", recent[3]], kept],
        [*good[:4], [recent[1], recent[0], recent[2], recent[3]], kept],
        [*good[:4], [recent[0], str(int(recent[1]) + 1), recent[2], recent[3]], kept],
        [*good[:4], [recent[0], str(int(recent[0]) + 3 * RECENT_MS), recent[2], recent[3]], kept],
        [*good[:4], recent, [kept[0], str(int(kept[1]) - SLICE_MS), kept[2], kept[3]]],
        [*good[:4], kept, recent],
    ]
    forms = [json.dumps(form, separators=(",", ":")).encode() for form in changed]
    return [
        *forms,
        json.dumps(good).encode(),
        text + b" ",
        text.replace(b"https", b"\\u0068ttps"),
        b"",
        b"[" * 100_000,
        b"\xff" + text,
        text.ljust(MAX_HEARTBEAT_BYTES + 1),
    ]


@pytest.mark.parametrize("content", other_forms(), ids=lambda c: c[:60].decode("latin-1"))
def test_any_other_form_is_no_heartbeat(content: bytes) -> None:
    assert parse_heartbeat(content) is None


def test_the_largest_heartbeat_fits_its_limit() -> None:
    last = (1 << 62) // BLOCK_MS * BLOCK_MS
    most = (1 << 63) - 1
    heartbeat = Heartbeat(
        tuple(f"https://{i}{'a' * 247}" for i in range(4)),
        (most, Root(b"\xff" * 32)),
        Sum(last - RECENT_MS, RECENT_MS, most, Root(b"\xff" * 32)),
        Sum(0, last - RECENT_MS, most, Root(b"\xff" * 32)),
    )
    content = write_heartbeat(heartbeat)
    assert len(heartbeat.urls[0]) == 256
    assert len(content) <= MAX_HEARTBEAT_BYTES
    assert parse_heartbeat(content) == heartbeat


def test_only_a_plain_json_message_carries_a_heartbeat() -> None:
    message = publish_message(
        BROKER, stream_id=SYSTEM, timestamp_ms=1, content=write_heartbeat(a_heartbeat()), msg_chain_id="a" * 20
    )
    assert heartbeat_of(message) == (BROKER.address, a_heartbeat())
    assert heartbeat_of(structs.replace(message, encryption_type=EncryptionType.AES)) is None
    assert heartbeat_of(structs.replace(message, publisher_id=b"\x02" + bytes(32))) is None
    assert heartbeat_of(structs.replace(message, content=b"[]")) is None


def test_a_heartbeat_out_of_form_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError):
        replace(a_heartbeat(), urls=("gopher://x",))
    with pytest.raises(InvariantError):
        replace(a_heartbeat(), kept=empty_total(0, SLICE_MS))


def test_a_slice_closes_five_seconds_after_its_end() -> None:
    assert closed_until(GENESIS + 14_999) == GENESIS
    assert closed_until(GENESIS + 15_000) == GENESIS + 10_000
    assert closed_until(3) == 0


def test_what_lies_below_must_give_what_lies_above() -> None:
    slices = slice_sums()
    total = total_of(GENESIS, GENESIS + BLOCK_MS, slices)
    below = [s for start, s in sorted(slices.items()) if start < GENESIS + BLOCK_MS]
    check_below(total, below)
    for wrong in (
        below[1:],
        below[::-1],
        [*below, below[-1]],
        [below[0], replace(below[1], count=below[1].count + 1), below[2]],
        [*below, empty_total(GENESIS + 20_000, GENESIS + 30_000)],
        [*below, replace(below[0], start_ms=GENESIS + BLOCK_MS)],
    ):
        with pytest.raises(MalformedInput, match="sums"):
            check_below(total, wrong)
    case = VECTORS["slices"][1]
    parts = [s for s in part_sums(case) if s.count]
    whole = sum_parts(int(case["start_ms"]), parts)
    for other in (parts[1:], [*parts, parts[0]], [*parts, PartSum(("q", 0), 0, EMPTY_ROOT)]):
        with pytest.raises(MalformedInput, match="parts"):
            check_parts(whole, other)


@pytest.mark.parametrize(("from_ms", "until_ms"), [(1, 10_000), (0, 9_999), (20_000, 10_000), (-10_000, 0)])
def test_a_range_is_of_whole_slices_and_in_order(from_ms: int, until_ms: int) -> None:
    with pytest.raises(MalformedInput, match="range"):
        cut(from_ms, until_ms)
