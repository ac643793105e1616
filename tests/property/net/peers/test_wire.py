from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validator.net.peers import wire
from validator.net.signed.faults import Fault, decode_fault, encode_fault
from validator.net.signed.pages import decode_page, encode_page
from validator.ports.peers import Attestation, Gossip, Handshake, HeldVotes
from validator.protocol.codec import cbor
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
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

digests = st.binary(min_size=32, max_size=32).map(Digest)
addresses = st.binary(min_size=20, max_size=20).map(Address)
signatures = st.binary(min_size=65, max_size=65)
numbers = st.integers(0, (1 << 63) - 1)
rounds = st.integers(0, 1 << 20)
instances = st.builds(InstanceId, st.sampled_from(InstanceKind), numbers)
votes = st.builds(
    Statement,
    st.sampled_from([StatementKind.PREVOTE, StatementKind.PRECOMMIT]),
    digests,
    instances,
    rounds,
    digests,
    addresses,
    signature=signatures,
)
quorums = st.builds(
    VoteQuorum,
    st.sampled_from([StatementKind.PREVOTE, StatementKind.PRECOMMIT]),
    digests,
    instances,
    rounds,
    digests,
    st.dictionaries(addresses, signatures, max_size=5).map(lambda d: tuple(sorted(d.items()))),
)
uploads = st.builds(
    UploadAnnouncement, digests, numbers, digests.map(Root), digests.map(StorageId), digests, addresses, signatures
)
attestations = st.builds(Attestation, numbers, digests, addresses, signatures)


def few(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


gossips = st.builds(Gossip, few(votes), few(quorums), few(st.binary(max_size=50)), few(uploads), few(attestations))
held_votes = st.builds(
    HeldVotes,
    digests,
    instances,
    st.lists(
        st.tuples(
            st.sampled_from(StatementKind),
            rounds,
            digests,
            st.lists(addresses, max_size=3, unique=True).map(lambda a: tuple(sorted(a))),
        ),
        max_size=3,
        unique_by=lambda item: item[:3],
    ).map(lambda items: tuple(sorted(items))),
)
handshakes = st.builds(Handshake, addresses, few(numbers), few(st.binary(max_size=50)), numbers, numbers)
parts = st.lists(st.tuples(st.text(min_size=1, max_size=20), st.integers(0, 99)), max_size=5, unique=True).map(
    lambda items: sorted(items, key=lambda p: (p[0].encode(), p[1]))
)


@given(gossips)
def test_gossip_survives_the_wire(gossip: Gossip) -> None:
    assert wire.decode_gossip(wire.encode_gossip(gossip)) == gossip


@given(held_votes)
def test_held_votes_survive_the_wire(held: HeldVotes) -> None:
    assert wire.decode_held(wire.encode_held(held)) == held


@given(handshakes)
def test_handshakes_survive_the_wire(handshake: Handshake) -> None:
    assert wire.decode_handshake(wire.encode_handshake(handshake)) == handshake


@given(digests.map(Root), parts, st.binary(max_size=100), st.booleans())
def test_questions_of_a_session_survive_the_wire(root: Root, some: Any, message: bytes, strong: bool) -> None:
    encoded = wire.encode_reconcile(root, reversed(some), message, strong=strong)
    assert wire.decode_reconcile(encoded) == (root, some, message, strong)


@given(digests.map(Root), st.lists(digests, max_size=5, unique=True))
def test_questions_for_messages_survive_the_wire(root: Root, leaves: list[Digest]) -> None:
    assert wire.decode_leaves(wire.encode_leaves(root, leaves)) == (root, leaves)
    assert wire.decode_set_root(wire.encode_set_root(root)) == root


@given(st.lists(st.tuples(instances, st.binary(max_size=50), quorums), max_size=4))
def test_certified_outcomes_survive_the_wire(certified: list[Any]) -> None:
    assert wire.decode_certified(wire.encode_certified(certified)) == certified
    asked = [instance for instance, _, _ in certified]
    assert wire.decode_instances(wire.encode_instances(asked)) == asked


@given(instances, st.lists(digests, max_size=wire.MAX_NAMED))
def test_the_names_of_observations_survive_the_wire(instance: Any, named: list[Digest]) -> None:
    config = Digest(b"\x07" * 32)
    assert wire.decode_named(wire.encode_named(instance, config, named)) == (instance, config, named)


@given(st.lists(st.lists(st.binary(max_size=30), max_size=3).map(cbor.encode), max_size=20))
def test_pages_survive_the_wire(messages: list[bytes]) -> None:
    assert decode_page(encode_page(messages), 20) == messages


DECODERS: list[Callable[[bytes], Any]] = [
    wire.decode_gossip,
    wire.decode_held,
    wire.decode_set_root,
    wire.decode_reconcile,
    wire.decode_leaves,
    wire.decode_digest,
    wire.decode_named,
    wire.decode_instances,
    wire.decode_certified,
    wire.decode_handshake,
    decode_fault,
    lambda data: decode_page(data, 10),
]
WHOLE = [
    wire.encode_held(
        HeldVotes(
            Digest(bytes(32)),
            InstanceId(InstanceKind.WINDOW, 5),
            ((StatementKind.PREVOTE, 0, Digest(bytes(32)), (Address(bytes(20)),)),),
        )
    ),
    wire.encode_gossip(
        Gossip(bodies=(b"a",), attestations=(Attestation(1, Digest(bytes(32)), Address(bytes(20)), bytes(65)),))
    ),
    wire.encode_set_root(Root(bytes(32))),
    wire.encode_reconcile(Root(bytes(32)), [("s", 0), ("t", 1)], b"\x61", strong=False),
    wire.encode_leaves(Root(bytes(32)), [Digest(bytes(32))]),
    wire.encode_instances([InstanceId(InstanceKind.LATE, 3)]),
    wire.encode_handshake(Handshake(Address(bytes(20)), (1,), (b"config",), 5, 6)),
    encode_fault(Fault.TIME, "5"),
    encode_page([b"\x80"]),
]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bodies_are_refused_or_read_never_anything_else(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=3))
    for decode in DECODERS:
        try:
            decode(body)
        except MalformedInput as error:
            assert error.field
            assert error.reason


ROOT, LEAF = bytes(32), bytes(32)


@pytest.mark.parametrize(
    ("decode", "body", "field"),
    [
        (wire.decode_gossip, ["gossip/1", [b"x"], [], [], [], []], "statement/1"),
        (wire.decode_gossip, ["gossip/1", ["x"], [], [], [], []], "gossip.statements"),
        (wire.decode_gossip, ["gossip/1", [], [], [], [], [[1, LEAF, bytes(20)]]], "gossip.attestations"),
        (wire.decode_gossip, ["gossip/1", [], [], [], [], [[-1, LEAF, bytes(20), bytes(65)]]], "attestation.number"),
        (wire.decode_gossip, ["gossip/1", [], [], [b""] * 4097, [], []], "gossip"),
        (wire.decode_gossip, ["gossip/2", [], [], [], [], []], "gossip/1"),
        (wire.decode_gossip, ["gossip/1", [], [], [], []], "gossip/1"),
        (wire.decode_held, ["held/1", LEAF, 3, 0, []], "instance.kind"),
        (wire.decode_held, ["held/1", LEAF, True, 0, []], "instance.kind"),
        (wire.decode_held, ["held/1", LEAF, 1, -1, []], "instance.number"),
        (wire.decode_held, ["held/1", LEAF, 1, 0, [[9, 0, LEAF, []]]], "held.kind"),
        (wire.decode_held, ["held/1", LEAF, 1, 0, [[1, 0, LEAF, [b"short"]]]], "held.signers"),
        (wire.decode_held, ["held/1", LEAF, 1, 0, [[1, 0, LEAF, [bytes(20)] * 257]]], "held.signers"),
        (wire.decode_reconcile, ["reconcile/1", ROOT, 1, [], b""], "reconcile.strong"),
        (wire.decode_reconcile, ["reconcile/1", ROOT, True, [["b", 0], ["a", 0]], b""], "reconcile.parts"),
        (wire.decode_reconcile, ["reconcile/1", ROOT, True, [["a", 0], ["a", 0]], b""], "reconcile.parts"),
        (wire.decode_reconcile, ["reconcile/1", ROOT, True, [["", 0]], b""], "reconcile.parts"),
        (wire.decode_reconcile, ["reconcile/1", ROOT, True, [["a" * 257, 0]], b""], "reconcile.parts"),
        (wire.decode_reconcile, ["reconcile/1", ROOT, True, [["a", -1]], b""], "reconcile.partition"),
        (wire.decode_reconcile, ["reconcile/1", ROOT[1:], True, [], b""], "set_root"),
        (wire.decode_leaves, ["leaves/1", ROOT, [LEAF, LEAF]], "leaves"),
        (wire.decode_leaves, ["leaves/1", ROOT, [LEAF[1:]]], "leaves"),
        (wire.decode_leaves, ["leaves/1", ROOT, [n.to_bytes(32, "big") for n in range(4097)]], "leaves"),
        (wire.decode_named, ["named/1", ROOT, 1, 2, [LEAF] * 65], "named"),
        (wire.decode_named, ["named/1", ROOT[1:], 1, 2, [LEAF]], "named.config_digest"),
        (wire.decode_instances, ["instances/1", [[1]]], "instances"),
        (wire.decode_instances, ["instances/1", [[1, 2]] * 257], "instances"),
        (wire.decode_handshake, ["handshake/1", bytes(19), [], [], 0, 0], "handshake.member"),
        (wire.decode_handshake, ["handshake/1", bytes(20), [], [b""] * 17, 0, 0], "handshake.configs"),
        (decode_fault, ["fault/1", 1, "x"], "fault"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_by_field(decode: Any, body: Any, field: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        decode(cbor.encode(body))
    assert caught.value.field == field


def test_bodies_beyond_what_fits_are_left_out_largest_first() -> None:
    small, large = b"s" * 1000, b"l" * (4 << 20)
    gossip = wire.decode_gossip(wire.encode_gossip(Gossip(bodies=(small, large, b"t"))))
    assert gossip.bodies == (small, b"t")


def test_the_largest_gossip_that_we_send_is_one_that_we_read() -> None:
    statement = Statement(
        StatementKind.PREVOTE,
        Digest(LEAF),
        InstanceId(InstanceKind.WINDOW, 1),
        0,
        Digest(LEAF),
        Address(bytes(20)),
        signature=bytes(65),
    )
    signers = tuple((Address(n.to_bytes(20, "big")), bytes(65)) for n in range(31))
    quorum = VoteQuorum(StatementKind.PRECOMMIT, Digest(LEAF), statement.instance, 0, Digest(LEAF), signers)
    gossip = Gossip((statement,) * 2000, (quorum,) * 600, (bytes(4 << 20),))
    parts = [wire.decode_gossip(wire.encode_gossip(part)) for part in wire.split_gossip(gossip)]
    assert sum(len(p.statements) for p in parts) == 2000
    assert sum(len(p.quorums) for p in parts) == 600
    assert [len(p.bodies) for p in parts] == [1] + [0] * (len(parts) - 1)


def test_a_page_beyond_its_limits_is_refused() -> None:
    with pytest.raises(MalformedInput, match="more than"):
        decode_page(encode_page([cbor.encode(bytes(5 << 20))]), 10)
    with pytest.raises(MalformedInput, match="more than 3 items"):
        decode_page(encode_page([b"\x80"] * 4), 3)
    with pytest.raises(MalformedInput):
        decode_page(b"not zstd", 3)


def test_certified_outcomes_beyond_one_answer_are_left_out_but_never_all() -> None:
    quorum = VoteQuorum(StatementKind.PRECOMMIT, Digest(LEAF), InstanceId(InstanceKind.WINDOW, 1), 0, Digest(LEAF), ())
    some = [(InstanceId(InstanceKind.WINDOW, n), bytes(9 << 20), quorum) for n in range(3)]
    assert [i.number for i, _, _ in wire.decode_certified(wire.encode_certified(some))] == [0]
