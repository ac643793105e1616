"""Observations, outcomes, entries: published bytes, order made by the encoder, and everything else refused."""

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
from validator.protocol.codec.outcome import (
    body_digest,
    decode_entries,
    decode_observation,
    decode_outcome,
    encode_entries,
    encode_observation,
    encode_outcome,
    encode_rest,
    entries_root,
    observation_digest,
    outcome_digest,
    set_root,
)
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import EMPTY_ROOT, hash_object
from validator.protocol.leaves import entry_leaf, window_leaf
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


def plain(value: Any) -> Any:
    """As JSON shows it, bytes as hex."""
    return json.loads(json.dumps(value, default=lambda b: "0x" + b.hex()))


# --- published bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["observations"], ids=lambda v: v["name"])
def test_an_observation_has_the_bytes_and_digest_of_the_vector(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["canonical"])
    observation = decode_observation(data)
    assert encode_observation(observation) == data
    assert observation_digest(observation).hex() == vector["digest"] == hashlib.sha256(data).hexdigest()
    assert plain(cbor2.loads(data)) == vector["fields"]


@pytest.mark.parametrize("vector", VECTORS["outcomes"], ids=lambda v: v["name"])
def test_an_outcome_has_the_bytes_roots_and_digest_of_the_vector(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["canonical"])
    outcome = decode_outcome(data)
    assert encode_outcome(outcome) == data
    assert outcome_digest(outcome).hex() == body_digest(data).hex() == vector["digest"]
    assert entries_root(outcome.entries).hex() == vector["root"]
    assert set_root(outcome.entries).hex() == vector["set_root"]
    assert plain(cbor2.loads(data)) == vector["fields"]
    assert plain(cbor2.loads(encode_rest(outcome))) == vector["rest"]


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
    assert entries_root(ENTRIES) == tree_hash([entry_leaf(e, e.flags) for e in ENTRIES])
    bare = [replace(e, flags=Flag(0)) for e in ENTRIES if e.count]
    assert set_root(ENTRIES) == entries_root(bare) == tree_hash([entry_leaf(e, Flag(0)) for e in bare])
    assert entries_root(()) == set_root(()) == set_root([an_entry("a.eth/a", count=0)]) == EMPTY_ROOT


def test_the_digest_of_an_outcome_is_its_windows_leaf() -> None:
    outcome = an_outcome()
    leaf = window_leaf(INSTANCE, outcome.root, len(ENTRIES), hash_object(encode_rest(outcome)))
    assert outcome_digest(outcome) == body_digest(encode_outcome(outcome)) == leaf


def test_a_body_that_is_no_outcome_has_the_digest_of_its_bytes() -> None:
    observation = encode_observation(an_observation())
    assert body_digest(observation) == observation_digest(an_observation()) == hash_object(observation)
    cut = encode_outcome(an_outcome())[:-1]
    assert body_digest(cut) == hash_object(cut)
    assert body_digest(b"") == hash_object(b"")


def test_a_body_that_was_named_by_its_digest_is_not_decoded_again() -> None:
    body = encode_outcome(an_outcome())
    body_digest(body)
    assert decode_outcome(body) is decode_outcome(bytes(bytearray(body)))


def test_totals_of_an_outcome_are_those_of_its_entries() -> None:
    outcome = an_outcome()
    assert (outcome.count, outcome.signed_bytes, outcome.canonical_bytes) == (6, 1_800, 2_400)


def test_an_outcome_whose_root_is_not_its_entries_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError):
        outcome_digest(an_outcome(root=Root(bytes(32))))
    with pytest.raises(InvariantError):
        encode_outcome(an_outcome(root=Root(bytes(32))))


def test_no_price_and_a_price_of_zero_are_different_observations() -> None:
    assert observation_digest(an_observation(price=None)) != observation_digest(an_observation(price=0))


def test_two_who_saw_the_same_have_different_observations() -> None:
    assert observation_digest(an_observation(observer=ONE)) != observation_digest(an_observation(observer=TWO))


# --- refused --------------------------------------------------------------------------------------


def in_rest(inner: Change) -> Change:
    """The same within the byte string that holds the rest of an outcome."""

    def change(fields: Any) -> None:
        rest = cbor2.loads(fields[4])
        inner(rest)
        fields[4] = cbor2.dumps(rest)

    return change


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
    ("an earlier version", put(0, "outcome/1")),
    ("unknown instance kind", put(1, 0)),
    ("entries no list", put(3, b"")),
    ("entries not sorted", turn(3)),
    ("an entry twice", double(3)),
    ("an entry of six fields", put(3, 0, ["a.eth/a", 9, bytes(32), 1, 1, 1])),
    ("an unknown flag", put(3, 0, 6, 16)),
    ("a partition that a leaf cannot hold", put(3, 0, 1, 1 << 32)),
    ("the rest as a list", put(4, ["rest/2", 7, bytes(32), b"", [], [], [], 0])),
    ("another version of the rest", in_rest(put(0, "rest/1"))),
    ("a negative block number", in_rest(put(1, -1))),
    ("block hash of 33 bytes", in_rest(put(2, bytes(33)))),
    ("price not minimal", in_rest(put(3, b"\x00"))),
    ("a share as number", in_rest(put(4, 0, 5))),
    ("observations not sorted", in_rest(turn(5))),
    ("an observation twice", in_rest(double(5))),
    ("evidence not sorted", in_rest(turn(6))),
    ("evidence whose leaves are swapped", in_rest(put(6, 0, ["a.eth/a", 9, b"\x02" * 32, b"\x01" * 32]))),
    ("evidence of one leaf", in_rest(put(6, 0, ["a.eth/a", 9, b"\x01" * 32, b"\x01" * 32]))),
    ("a negative evidence count", in_rest(put(7, -1))),
    ("a rest of one field less", in_rest(lambda fields: fields.pop())),
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
