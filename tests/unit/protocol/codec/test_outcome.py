"""Observations, outcomes, entries: published bytes, order made by the encoder, and everything else refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests import paths
from tests.rfc9162 import leaf_hash, tree_hash
from validator.protocol.codec.outcome import (
    decode_entries,
    decode_observation,
    decode_outcome,
    encode_entries,
    encode_entry,
    encode_observation,
    encode_outcome,
    entries_root,
    observation_digest,
    outcome_digest,
    set_root,
)
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.model import (
    Address,
    BrokerShare,
    Digest,
    Equivocation,
    Flag,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    PartitionEntry,
    Root,
)

VECTORS = json.loads((paths.VECTORS / "outcome.json").read_text())
INSTANCE = InstanceId(InstanceKind.WINDOW, 1_700_000_000_000)
ONE, TWO = Address(b"\x01" * 20), Address(b"\x02" * 20)


def a_digest(number: int) -> Digest:
    return Digest(bytes([number]) * 32)


def an_entry(stream: str, partition: int = 0, count: int = 2, flags: Flag = Flag(0)) -> PartitionEntry:
    return PartitionEntry(stream, partition, Root(b"\x0e" * 32), count, 300 * count, 400 * count, flags)


# U+FF5E sorts before U+1F600 by UTF-8 and behind it by UTF-16; partition 9 comes before 10.
ENTRIES = (
    an_entry("a.eth/a", 9, flags=Flag.FULL),
    an_entry("a.eth/a", 10, count=0, flags=Flag.INCOMPLETE),
    an_entry("a.eth/～"),
    an_entry("a.eth/\U0001f600", flags=Flag.VARIANTS | Flag.EQUIVOCATION),
)


def an_observation(**fields: Any) -> Observation:
    values: dict[str, Any] = {
        "instance": INSTANCE,
        "set_root": Root(b"\x05" * 32),
        "count": 6,
        "signed_bytes": 1_800,
        "incomplete": (("a.eth/a", 10), ("a.eth/～", 0)),
        "shares": (BrokerShare(ONE, 1_800, 0), BrokerShare(TWO, 0, 1_800)),
        "erc1271": (a_digest(1), a_digest(2)),
        "price": 1 << 70,
        "observer": TWO,
    }
    return Observation(**{**values, **fields})


def an_outcome(**fields: Any) -> Outcome:
    values: dict[str, Any] = {
        "instance": INSTANCE,
        "block_number": 7,
        "block_hash": a_digest(7),
        "entries": ENTRIES,
        "root": entries_root(ENTRIES),
        "price": 256,
        "shares": (BrokerShare(ONE, 1_800, 0),),
        "observations": (a_digest(3), a_digest(4), a_digest(5)),
        "evidence": (
            Equivocation("a.eth/a", 9, a_digest(1), a_digest(2)),
            Equivocation("a.eth/\U0001f600", 0, a_digest(1), a_digest(3)),
        ),
        "evidence_count": 9,
    }
    return Outcome(**{**values, **fields})


# --- published bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["observations"], ids=lambda v: v["name"])
def test_an_observation_has_the_bytes_and_digest_of_the_vector(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["canonical"])
    observation = decode_observation(data)
    assert encode_observation(observation) == data
    assert observation_digest(observation).hex() == vector["digest"] == hashlib.sha256(data).hexdigest()
    assert json.loads(json.dumps(cbor2.loads(data), default=lambda b: "0x" + b.hex())) == vector["fields"]


@pytest.mark.parametrize("vector", VECTORS["outcomes"], ids=lambda v: v["name"])
def test_an_outcome_has_the_bytes_roots_and_digest_of_the_vector(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["canonical"])
    outcome = decode_outcome(data)
    assert encode_outcome(outcome) == data
    assert outcome_digest(outcome).hex() == vector["digest"] == hashlib.sha256(data).hexdigest()
    assert entries_root(outcome.entries).hex() == vector["root"]
    assert set_root(outcome.entries).hex() == vector["set_root"]
    assert json.loads(json.dumps(cbor2.loads(data), default=lambda b: "0x" + b.hex())) == vector["fields"]


# --- order ----------------------------------------------------------------------------------------


def test_the_encoder_makes_the_order() -> None:
    observation, outcome = an_observation(), an_outcome()
    assert decode_observation(encode_observation(observation)) == observation
    assert decode_outcome(encode_outcome(outcome)) == outcome
    turned = replace(
        observation,
        incomplete=observation.incomplete[::-1],
        shares=observation.shares[::-1],
        erc1271=observation.erc1271[::-1],
    )
    assert encode_observation(turned) == encode_observation(observation)
    reversed_outcome = replace(
        outcome,
        entries=outcome.entries[::-1],
        shares=outcome.shares[::-1],
        observations=outcome.observations[::-1],
        evidence=outcome.evidence[::-1],
    )
    assert encode_outcome(reversed_outcome) == encode_outcome(outcome)
    assert decode_entries(encode_entries(ENTRIES[::-1])) == ENTRIES


def test_a_root_is_over_entries_with_flags_and_a_set_root_without_flags_and_empty_entries() -> None:
    assert entries_root(ENTRIES) == tree_hash([leaf_hash(encode_entry(e)) for e in ENTRIES])
    plain = [replace(e, flags=Flag(0)) for e in ENTRIES if e.count]
    assert set_root(ENTRIES) == entries_root(plain) == tree_hash([leaf_hash(encode_entry(e)) for e in plain])
    assert entries_root(()) == set_root(()) == set_root([an_entry("a.eth/a", count=0)]) == EMPTY_ROOT


def test_totals_of_an_outcome_are_those_of_its_entries() -> None:
    outcome = an_outcome()
    assert (outcome.count, outcome.signed_bytes, outcome.canonical_bytes) == (6, 1_800, 2_400)


def test_an_outcome_whose_root_is_not_its_entries_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError):
        encode_outcome(an_outcome(root=Root(bytes(32))))


def test_no_price_and_a_price_of_zero_are_different_observations() -> None:
    assert observation_digest(an_observation(price=None)) != observation_digest(an_observation(price=0))


def test_two_who_saw_the_same_have_different_observations() -> None:
    assert observation_digest(an_observation(observer=ONE)) != observation_digest(an_observation(observer=TWO))


# --- refused --------------------------------------------------------------------------------------

Change = Callable[[Any], Any]


def put(*path: Any) -> Change:
    """Set the element at path[:-1] of the decoded form to path[-1]."""

    def change(fields: Any) -> None:
        for step in path[:-2]:
            fields = fields[step]
        fields[path[-2]] = path[-1]

    return change


def turn(*path: int) -> Change:
    def change(fields: Any) -> None:
        for step in path:
            fields = fields[step]
        fields.reverse()

    return change


def double(*path: int) -> Change:
    def change(fields: Any) -> None:
        for step in path:
            fields = fields[step]
        fields.append(fields[-1])

    return change


def changed(data: bytes, change: Change) -> bytes:
    fields = cbor2.loads(data)
    change(fields)
    return cbor2.dumps(fields)


OBSERVATION_CHANGES: list[tuple[str, Change]] = [
    ("another version", put(0, "observation/2")),
    ("unknown kind", put(1, 3)),
    ("kind as truth value", put(1, True)),
    ("negative number", put(2, -1)),
    ("root of 31 bytes", put(3, bytes(31))),
    ("negative count", put(4, -1)),
    ("bytes as text", put(5, "1800")),
    ("partitions not sorted", turn(6)),
    ("a partition twice", double(6)),
    ("a partition without stream", put(6, 0, ["", 0])),
    ("a stream id of 257 bytes", put(6, 0, ["a" * 257, 0])),
    ("a negative partition", put(6, 0, ["a.eth/a", -1])),
    ("a partition of three", put(6, 0, ["a.eth/a", 1, 2])),
    ("shares not sorted", turn(7)),
    ("a broker twice", double(7)),
    ("a broker of 19 bytes", put(7, 0, [bytes(19), 1, 1])),
    ("a negative share", put(7, 0, 1, -1)),
    ("shares no list", put(7, 5)),
    ("digests not sorted", turn(8)),
    ("a digest twice", double(8)),
    ("price not minimal", put(9, b"\x00\x01")),
    ("price as number", put(9, 5)),
    ("price of 33 bytes", put(9, b"\x01" * 33)),
    ("an observer of 21 bytes", put(10, bytes(21))),
    ("one field more", double()),
]
OUTCOME_CHANGES: list[tuple[str, Change]] = [
    ("another kind of object", put(0, "observation/1")),
    ("unknown instance kind", put(1, 0)),
    ("block hash of 33 bytes", put(4, bytes(33))),
    ("entries no list", put(5, b"")),
    ("entries not sorted", turn(5)),
    ("an entry twice", double(5)),
    ("an entry of six fields", put(5, 0, ["a.eth/a", 9, bytes(32), 1, 1, 1])),
    ("an unknown flag", put(5, 0, 6, 16)),
    ("an entry changed under the root", put(5, 0, 3, 3)),
    ("another root", put(6, bytes(32))),
    ("price not minimal", put(7, b"\x00")),
    ("a share as number", put(8, 0, 5)),
    ("observations not sorted", turn(9)),
    ("an observation twice", double(9)),
    ("evidence not sorted", turn(10)),
    ("evidence whose leaves are swapped", put(10, 0, ["a.eth/a", 9, b"\x02" * 32, b"\x01" * 32])),
    ("evidence of one leaf", put(10, 0, ["a.eth/a", 9, b"\x01" * 32, b"\x01" * 32])),
    ("a negative evidence count", put(11, -1)),
    ("one field less", lambda fields: fields.pop()),
]


@pytest.mark.parametrize(("name", "change"), OBSERVATION_CHANGES, ids=[n for n, _ in OBSERVATION_CHANGES])
def test_an_observation_that_is_not_exactly_ours_is_refused(name: str, change: Change) -> None:
    with pytest.raises(MalformedInput):
        decode_observation(changed(encode_observation(an_observation()), change))


@pytest.mark.parametrize(("name", "change"), OUTCOME_CHANGES, ids=[n for n, _ in OUTCOME_CHANGES])
def test_an_outcome_that_is_not_exactly_ours_is_refused(name: str, change: Change) -> None:
    with pytest.raises(MalformedInput):
        decode_outcome(changed(encode_outcome(an_outcome()), change))


@pytest.mark.parametrize("change", [put(1, 5), put(1, None), turn(1), double(1), put(1, 0, 5)])
def test_entries_that_are_not_exactly_ours_are_refused(change: Change) -> None:
    with pytest.raises(MalformedInput):
        decode_entries(changed(encode_entries(ENTRIES), change))
