"""Manifests, bundle roots and ledgers: published bytes, and forms that are not exactly ours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests import paths
from tests.altered_cbor import Change, changed, double, put, turn
from tests.rfc9162 import tree_hash
from validator.protocol.codec.manifest import (
    MAX_LEDGER_BYTES,
    bundle_leaves,
    bundle_root,
    decode_header,
    decode_ledger,
    decode_manifest,
    encode_header,
    encode_ledger,
    encode_manifest,
    ledger_root,
    manifest_root,
)
from validator.protocol.codec.outcome import entries_root, outcome_digest
from validator.protocol.errors import MalformedInput
from validator.protocol.leaves import bundle_leaf, header_leaf
from validator.protocol.model import (
    Address,
    BundleHeader,
    Certified,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    Outcome,
    PartitionEntry,
    Root,
    StatementKind,
    VoteQuorum,
)
from validator.protocol.report import Debt, InFlight, Ledger, Reading

VECTORS = json.loads((paths.VECTORS / "manifest.json").read_text())
HEADER = BundleHeader(Digest(b"\x0c" * 32), 4, Root(b"\x11" * 32), 8_000, 9_000)
ONE, TWO = Address(b"\x01" * 20), Address(b"\x02" * 20)
LEDGER = Ledger(
    in_flight=(
        InFlight(3, {"a.eth/～": 5, "a.eth/\U0001f600": 1 << 95}, {ONE: 7, TWO: 8}, {}),
        InFlight(4, {}, {}, {TWO: 9}),
    ),
    owed={"b": Debt(2, 4, 1), "a": Debt(1, 3, 0)},
    cumulative={(ONE, TWO): Reading(2, (1 << 63) - 1), (ONE, ONE): Reading(1, 5)},
)


def certified(instance: InstanceId, count: int = 1) -> Certified:
    entries = (PartitionEntry("a.eth/a", 0, Root(b"\x0e" * 32), count, 300, 400),)
    outcome = Outcome(
        instance,
        7,
        Digest(b"\x07" * 32),
        entries,
        entries_root(entries),
        5 if instance.kind is InstanceKind.WINDOW else 0,
        (),
        (Digest(b"\x03" * 32),),
    )
    votes = ((ONE, b"\x41" * 65), (TWO, b"\x42" * 65))
    certificate = VoteQuorum(StatementKind.PRECOMMIT, HEADER.config_digest, instance, 1, outcome_digest(outcome), votes)
    return Certified(outcome, certificate)


def a_manifest(**fields: Any) -> Manifest:
    values: dict[str, Any] = {
        "header": HEADER,
        "config_preimage": b"preimage",
        "windows": tuple(certified(InstanceId(InstanceKind.WINDOW, ms)) for ms in (8_000, 9_000)),
        "late": certified(InstanceId(InstanceKind.LATE, 4), count=2),
        "ledger": encode_ledger(LEDGER),
    }
    return Manifest(**{**values, **fields})


# --- published bytes ------------------------------------------------------------------------------


def test_header_manifest_and_bundle_root_are_those_of_the_vector() -> None:
    vector = VECTORS["manifest"]
    data = bytes.fromhex(vector["canonical"])
    manifest = decode_manifest(data)
    assert encode_manifest(manifest) == data
    assert encode_header(manifest.header).hex() == vector["header"]
    assert manifest_root(manifest).hex() == vector["bundle_root"]
    leaves = [bytes.fromhex(leaf) for leaf in vector["leaves"]]
    assert bundle_leaf(len(leaves), Root(tree_hash(leaves))).hex() == vector["bundle_root"]


@pytest.mark.parametrize("vector", VECTORS["ledgers"], ids=lambda v: v["name"])
def test_a_ledger_has_the_bytes_and_root_of_the_vector(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["canonical"])
    assert encode_ledger(decode_ledger(data)) == data
    assert ledger_root(decode_ledger(data)).hex() == vector["root"] == hashlib.sha256(data).hexdigest()
    assert json.loads(json.dumps(cbor2.loads(data), default=lambda b: "0x" + b.hex())) == vector["fields"]


# --- bundle root ----------------------------------------------------------------------------------


def test_the_bundle_root_covers_header_every_window_in_order_and_the_late_set() -> None:
    digests = [Digest(bytes([n]) * 32) for n in (1, 2)]
    late = Digest(b"\x03" * 32)
    root = bundle_root(HEADER, digests, late)
    leaves = [header_leaf(HEADER), *digests, late]
    assert bundle_leaves(HEADER, digests, late) == leaves
    assert root == bundle_leaf(4, Root(tree_hash(leaves)))
    others = {
        bundle_root(HEADER, digests[::-1], late),
        bundle_root(HEADER, digests[:1], late),
        bundle_root(HEADER, digests, digests[0]),
        bundle_root(replace(HEADER, number=5), digests, late),
        bundle_root(replace(HEADER, previous_root=Root(bytes(32))), digests, late),
    }
    assert root not in others
    assert len(others) == 5


def test_the_root_of_a_manifest_is_recomputed_from_its_outcomes() -> None:
    manifest = a_manifest()
    digests = [outcome_digest(c.outcome) for c in manifest.windows]
    assert manifest_root(manifest) == bundle_root(HEADER, digests, outcome_digest(manifest.late.outcome))
    without_late = replace(manifest, late=certified(InstanceId(InstanceKind.LATE, 4), count=0))
    assert manifest_root(without_late) != manifest_root(manifest)


def test_a_manifest_survives_its_bytes() -> None:
    assert decode_manifest(encode_manifest(a_manifest())) == a_manifest()


# --- ledger ---------------------------------------------------------------------------------------


def test_a_ledger_is_three_sorted_maps_without_zeros() -> None:
    turned = Ledger(
        in_flight=(
            InFlight(4, {"z": 0}, {ONE: 0}, {TWO: 9, ONE: 0}),
            InFlight(3, {"a.eth/\U0001f600": 1 << 95, "a.eth/～": 5}, {TWO: 8, ONE: 7}, {}),
        ),
        owed={"a": Debt(1, 3, 0), "b": Debt(2, 4, 1), "c": Debt(0, 1, 0)},
        cumulative={
            (ONE, ONE): Reading(1, 5),
            (TWO, TWO): Reading(0, 0),
            (ONE, TWO): Reading(2, (1 << 63) - 1),
        },
    )
    assert encode_ledger(turned) == encode_ledger(LEDGER)
    assert decode_ledger(encode_ledger(turned)) == LEDGER
    assert encode_ledger(Ledger()) == encode_ledger(Ledger(owed={}, cumulative={}))


# --- refused --------------------------------------------------------------------------------------

LEDGER_CHANGES: list[tuple[str, Change]] = [
    ("another version", put(0, "ledger/1")),
    ("reports not sorted", turn(1)),
    ("a report twice", double(1)),
    ("a negative number", put(1, 0, 0, -1)),
    ("a number as text", put(1, 0, 0, "3")),
    ("a number as truth value", put(1, 0, 0, True)),
    ("a report of three fields", put(1, 0, [3, [], []])),
    ("streams not sorted", turn(1, 0, 1)),
    ("a consumer twice", double(1, 0, 2)),
    ("a node of 19 bytes", put(1, 1, 3, 0, [bytes(19), b"\x09"])),
    ("a stream id as bytes", put(2, 0, [b"a", b"\x01", 3, 0])),
    ("an amount of zero", put(2, 0, ["a", b"", 3, 0])),
    ("an amount that is not minimal", put(2, 0, ["a", b"\x00\x01", 3, 0])),
    ("an amount as number", put(2, 0, ["a", 1, 3, 0])),
    ("a debt since before the first bundle", put(2, 0, ["a", b"\x01", -1, 0])),
    ("a debt without its age", put(2, 0, ["a", b"\x01"])),
    ("debts no list", put(2, 5)),
    ("debts not sorted", turn(2)),
    ("receipts not sorted", turn(3)),
    ("a receipt as text", put(3, 0, 3, "5")),
    ("a receipt of zero bytes", put(3, 0, 3, 0)),
    ("a receipt of 2^63 bytes", put(3, 0, 3, 1 << 63)),
    ("a negative receipt", put(3, 0, 3, -5)),
    ("a receipt without broker", put(3, 0, [ONE, 1, 5])),
    ("a field more", double()),
]
MANIFEST_CHANGES: list[tuple[str, Change]] = [
    ("another version", put(0, "manifest/2")),
    ("header as list", put(1, [])),
    ("preimage as text", put(2, "preimage")),
    ("no windows", put(3, [])),
    ("windows no list", put(3, b"")),
    ("a window of one part", put(3, 0, [b""])),
    ("a window of three parts", put(3, 0, [b"", b"", b""])),
    ("an outcome that does not parse", put(3, 0, 0, b"\x80")),
    ("a certificate that does not parse", put(3, 0, 1, b"\x80")),
    ("late set no pair", put(4, 5)),
    ("ledger as text", put(5, "ledger")),
    ("versions no list", put(6, 1)),
    ("a version as text", put(6, ["1"])),
    ("a version as truth value", put(6, [True])),
]


@pytest.mark.parametrize(("name", "change"), LEDGER_CHANGES, ids=[n for n, _ in LEDGER_CHANGES])
def test_a_ledger_that_is_not_exactly_ours_is_refused(name: str, change: Change) -> None:
    with pytest.raises(MalformedInput):
        decode_ledger(changed(encode_ledger(LEDGER), change))


@pytest.mark.parametrize(("name", "change"), MANIFEST_CHANGES, ids=[n for n, _ in MANIFEST_CHANGES])
def test_a_manifest_that_is_not_exactly_ours_is_refused(name: str, change: Change) -> None:
    with pytest.raises(MalformedInput):
        decode_manifest(changed(encode_manifest(a_manifest()), change))


@pytest.mark.parametrize(
    ("position", "value"), [(0, "header/2"), (1, bytes(31)), (2, -1), (2, "4"), (3, 7), (4, None), (5, True)]
)
def test_a_header_that_is_not_exactly_ours_is_refused(position: int, value: Any) -> None:
    with pytest.raises(MalformedInput):
        decode_header(changed(encode_header(HEADER), put(position, value)))


def test_an_oversized_ledger_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MalformedInput, match="exceed"):
        decode_ledger(bytes(MAX_LEDGER_BYTES + 1))
