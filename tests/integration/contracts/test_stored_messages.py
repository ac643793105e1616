"""ReportManager proves to other contracts what the network has stored, and nothing that it has not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import paths
from tests.builders import an_unsigned_message
from tests.contract_network import ContractNetwork
from tests.proving import START_MS, Proven, a_bundle, a_part, altered
from validator.net.chain.abi import interface
from validator.protocol.codec.manifest import bundle_leaves, bundle_root
from validator.protocol.codec.message import decode_message, make_record
from validator.protocol.codec.outcome import body_digest, decode_outcome, entries_root, entry_fields, outcome_digest
from validator.protocol.codec.proof import message_values, proof_values
from validator.protocol.errors import MalformedInput, RemoteFault
from validator.protocol.hashing import hash_body
from validator.protocol.leaves import entry_leaf
from validator.protocol.merkle import compute_root, inclusion_proof
from validator.protocol.model import BundleHeader, Digest, PartitionEntry, Record, Root
from validator.protocol.proof import (
    BundleStep,
    EntryProof,
    MessageProof,
    WindowProof,
    build_entry,
    build_message,
    build_window,
    verify_entry,
    verify_message,
)

PART = a_part(1)
MESSAGE_GAS = 110_000
VECTORS = json.loads((paths.VECTORS / "leaves.json").read_text())


def store(network: ContractNetwork, root: Root) -> None:
    """Have a bundle of this root accepted."""
    network.submit(network.next_report(bundle_root=root))


def contract_takes(network: ContractNetwork, number: int, canonical: bytes, proof: MessageProof) -> bool:
    fields = message_values(decode_message(canonical), canonical)
    return bool(network.chain.call("ReportManager", "verifyMessage", number, fields, proof_values(proof))[0])


def we_take(canonical: bytes, proof: MessageProof, root: Root) -> bool:
    try:
        verify_message(proof, canonical, root)
    except MalformedInput:
        return False
    return True


def prove(proven: Proven, index: int = 0) -> tuple[bytes, MessageProof]:
    proof = build_message(proven.outcome, PART, proven.leaves(PART), index, proven.bundle)
    return proven.records[PART][index].canonical, proof


# --- what is stored -------------------------------------------------------------------------------


@pytest.mark.parametrize("bundle", VECTORS["bundles"], ids=[b["name"] for b in VECTORS["bundles"]])
def test_the_contract_agrees_with_the_vectors_at_every_level(network: ContractNetwork, bundle: dict[str, Any]) -> None:
    store(network, Root(bytes.fromhex(bundle["root"])))
    leaves = [Digest(bytes.fromhex(leaf)) for leaf in bundle["leaves"]]
    ask = network.chain.call
    for window in VECTORS["windows"]:
        outcome = decode_outcome(bytes.fromhex(window["outcome"]))
        digest = Digest(bytes.fromhex(window["leaf"]))
        assert digest == body_digest(bytes.fromhex(window["outcome"]))
        if digest not in leaves:
            continue
        assert ask("ReportManager", "verifyWindow", 0, digest, proof_values(build_window(digest, leaves))) == (True,)
        records = [make_record(decode_message(bytes.fromhex(item))) for item in window["messages"]]
        for entry in outcome.entries:
            values = proof_values(build_entry(outcome, entry.stream_part, leaves))
            assert ask("ReportManager", "verifyEntry", 0, entry_fields(entry), values) == (True,)
            members = [r for r in records if r.message.stream_part == entry.stream_part]
            for index, record in enumerate(members):
                proof = build_message(outcome, entry.stream_part, [r.leaf for r in members], index, leaves)
                assert contract_takes(network, 0, record.canonical, proof)


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=[v["name"] for v in VECTORS["messages"]])
def test_a_message_of_any_kind_is_proven_from_its_plain_fields(
    network: ContractNetwork, vector: dict[str, Any]
) -> None:
    canonical = bytes.fromhex(vector["canonical"])
    record = make_record(decode_message(canonical))
    proven, proof = around(record, entries=3, messages=5)
    store(network, proven)
    assert contract_takes(network, 0, canonical, proof)
    assert we_take(canonical, proof, proven)


def around(record: Record, *, entries: int, messages: int, windows: int = 3) -> tuple[Root, MessageProof]:
    """A message among others that are only hashes."""
    leaves = [hash_body(b"message %d" % number) for number in range(messages)]
    leaves[messages // 2] = record.leaf
    own = PartitionEntry(*record.message.stream_part, compute_root(leaves), messages, 1 << 30, 1 << 31)
    others = [replace(own, stream_id=f"~{number:04}") for number in range(entries - 1)]
    template = a_bundle((1,)).outcome
    outcome = replace(template, entries=(own, *others), root=entries_root([own, *others]))
    header = BundleHeader(Digest(b"\x0c" * 32), 7, Root(b"\x11" * 32), START_MS, START_MS)
    digests = [Digest(hash_body(b"window %d" % number)) for number in range(windows)]
    digests[windows // 2] = outcome_digest(outcome)
    late = Digest(hash_body(b"late"))
    proof = build_message(outcome, own.stream_part, leaves, messages // 2, bundle_leaves(header, digests, late))
    return bundle_root(header, digests, late), proof


def test_one_of_a_hundred_thousand_messages_in_a_thousand_partitions_is_proven_within_the_gas_limit(
    network: ContractNetwork,
) -> None:
    message = an_unsigned_message(stream_id="a.eth/sensors", content=b'{"temperature":21.5,"unit":"C"}')
    record = make_record(message)
    root, proof = around(record, entries=1000, messages=100_000, windows=60)
    store(network, root)
    manager = network.chain.address_of("ReportManager")
    network.chain.deploy_beside("MessageReader", "0x" + manager.hex(), message.stream_id, "0x" + bytes(20).hex())
    fields, values = message_values(record.message, record.canonical), proof_values(proof)
    request = {
        "to": "0x" + manager.hex(),
        "data": "0x" + interface("ReportManager").function("verifyMessage").encode((0, fields, values)).hex(),
    }
    gas = int(network.chain.call_rpc("eth_estimateGas", request), 16)
    assert contract_takes(network, 0, record.canonical, proof)
    assert gas <= MESSAGE_GAS
    receipt = network.chain.transact(network.validators[0], "MessageReader", "read", 0, fields, values)
    assert int(receipt["gasUsed"], 16) <= 1.5 * MESSAGE_GAS  # three slots of its own, an event, and the call between


def test_a_contract_reads_what_is_stored_and_nothing_else(network: ContractNetwork) -> None:
    proven = a_bundle((2, 5, 3))
    store(network, proven.root)
    manager = "0x" + network.chain.address_of("ReportManager").hex()
    network.chain.deploy_beside("MessageReader", manager, PART[0], "0x" + bytes(20).hex())
    canonical, proof = prove(proven, 3)
    message = decode_message(canonical)
    fields, values = message_values(message, canonical), proof_values(proof)
    invented = an_unsigned_message(stream_id=PART[0], partition=PART[1], timestamp_ms=START_MS + 31)
    told = [
        (0, message_values(invented, canonical), "NotStored"),
        (1, fields, "NoSuchReport"),
        (0, (*fields[:5], b"another content", fields[6]), "NotStored"),
        (0, (fields[0], a_part(0)[1], *fields[2:]), "NotStored"),
        (0, (a_part(2)[0], *fields[1:]), "WrongStream"),
        (0, (*fields[:4], b"\x01" * 20, *fields[5:]), "WrongPublisher"),
    ]
    for number, said, refusal in told:
        assert network.refusal_of("MessageReader", "read", number, said, values) == refusal
    network.chain.transact(network.validators[0], "MessageReader", "read", 0, fields, values)
    assert network.chain.call("MessageReader", "newestMs") == (message.timestamp_ms,)
    assert network.refusal_of("MessageReader", "read", 0, fields, values) == "NotNewer"


# --- what is not ----------------------------------------------------------------------------------


def test_another_index_or_count_proves_nothing(network: ContractNetwork) -> None:
    proven = a_bundle((2, 6, 3))
    store(network, proven.root)
    canonical, proof = prove(proven, 4)  # beside its neighbour it has a shorter way up than 0 to 3
    assert contract_takes(network, 0, canonical, proof)
    for index in range(9):
        for count in range(9):
            wrong = replace(proof, entry=replace(proof.entry, index=index, count=count))
            assert contract_takes(network, 0, canonical, wrong) == (wrong == proof)
    for index in range(5):
        for entries in range(6):
            wrong = replace(proof, window=replace(proof.window, index=index, entries=entries))
            assert contract_takes(network, 0, canonical, wrong) == (wrong == proof)
    assert proof.bundle is not None
    for index in range(8):
        for leaves in range(9):
            wrong = replace(proof, bundle=replace(proof.bundle, index=index, leaves=leaves))
            assert contract_takes(network, 0, canonical, wrong) == (wrong == proof)


def test_a_node_cut_short_or_a_level_skipped_proves_nothing(network: ContractNetwork) -> None:
    proven = a_bundle((1, 4, 3))
    store(network, proven.root)
    canonical, proof = prove(proven, 2)
    entry, window, bundle = proof.entry, proof.window, proof.bundle
    assert bundle is not None
    skipped = [
        MessageProof(replace(entry, path=window.path), replace(window, path=entry.path), bundle),
        MessageProof(replace(entry, index=0, count=1, path=()), window, bundle),
        MessageProof(replace(entry, index=0, count=2, path=entry.path[:1]), window, bundle),
        MessageProof(replace(entry, index=1, count=2, path=entry.path[1:]), window, bundle),
        MessageProof(entry, replace(window, index=0, entries=1, path=()), bundle),
        MessageProof(replace(entry, count=12, path=(*entry.path, *window.path)), replace(window, path=()), bundle),
        MessageProof(entry, replace(window, path=(*window.path, *bundle.path)), replace(bundle, index=1, path=())),
        MessageProof(entry, window, replace(bundle, index=0, leaves=1, path=())),
    ]
    for wrong in skipped:
        assert not contract_takes(network, 0, canonical, wrong)
        assert not we_take(canonical, wrong, proven.root)


def test_no_hash_of_another_level_passes_for_a_window(network: ContractNetwork) -> None:
    """Windows are named by their digest alone: the header's leaf, a node, an entry, a message, the root are none."""
    proven = a_bundle((1, 4, 3))
    store(network, proven.root)
    ask = network.chain.call
    step = build_window(proven.digest, proven.bundle).bundle
    assert ask("ReportManager", "verifyWindow", 0, proven.digest, proof_values(WindowProof(step))) == (True,)
    size = len(proven.bundle)
    header = BundleStep(0, size, inclusion_proof(proven.bundle, 0))
    node = compute_root(proven.bundle[:2])
    entry = proven.outcome.entries[1]
    others = [
        (proven.bundle[0], header),
        (node, replace(step, index=0, path=inclusion_proof(proven.bundle, 0)[1:])),
        (node, replace(step, index=1, leaves=size // 2, path=step.path[1:])),
        (compute_root(proven.bundle), BundleStep(0, 1, ())),
        (proven.root, BundleStep(0, 1, ())),
        (entry_leaf(entry, entry.flags), step),
        (proven.records[PART][0].leaf, step),
        (entry.root, step),
        (proven.outcome.root, step),
    ]
    for digest, wrong in others:
        assert ask("ReportManager", "verifyWindow", 0, digest, proof_values(WindowProof(wrong))) == (False,)


def test_a_proof_is_of_one_report(network: ContractNetwork) -> None:
    one, two = a_bundle((1, 4, 3)), a_bundle((1, 5, 3))
    store(network, one.root)
    store(network, two.root)
    canonical, proof = prove(two)
    assert not contract_takes(network, 0, canonical, proof)
    assert contract_takes(network, 1, canonical, proof)
    with pytest.raises(RemoteFault, match="NoSuchReport"):
        contract_takes(network, 2, canonical, proof)


# --- the contract and we --------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 40), min_size=2, max_size=12).filter(lambda s: s[1] > 0).map(tuple),
    place=st.integers(0, 3),
    data=st.data(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_contract_takes_exactly_the_proofs_that_we_take(
    network: ContractNetwork, sizes: tuple[int, ...], place: int, data: st.DataObject
) -> None:
    proven = a_bundle(sizes, place)
    store(network, proven.root)
    number = network.number - 1
    index = data.draw(st.integers(0, sizes[1] - 1))
    canonical, proof = prove(proven, index)
    assert contract_takes(network, number, canonical, proof)
    assert we_take(canonical, proof, proven.root)
    steps = [other for other in altered(proof) if other.bundle is not None]
    for wrong in data.draw(st.lists(st.sampled_from(steps), min_size=4, max_size=4)):
        twice = data.draw(st.sampled_from([o for o in altered(wrong) if o.bundle is not None]))
        for shown in (wrong, twice):  # altering twice may give the genuine proof back
            assert contract_takes(network, number, canonical, shown) == we_take(canonical, shown, proven.root)
    entry = proven.outcome.entries[data.draw(st.integers(0, len(proven.outcome.entries) - 1))]
    whole = build_entry(proven.outcome, entry.stream_part, proven.bundle)
    for shown_entry in (entry, *data.draw(st.lists(st.sampled_from(list(altered(entry))), max_size=3))):
        assert _takes_entry(network, number, shown_entry, whole) == _we_take_entry(whole, shown_entry, proven.root)


def _takes_entry(network: ContractNetwork, number: int, entry: PartitionEntry, proof: EntryProof) -> bool:
    values = proof_values(proof)
    return bool(network.chain.call("ReportManager", "verifyEntry", number, entry_fields(entry), values)[0])


def _we_take_entry(proof: EntryProof, entry: PartitionEntry, root: Root) -> bool:
    try:
        verify_entry(proof, entry, root)
    except MalformedInput:
        return False
    return True
