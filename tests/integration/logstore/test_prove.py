"""logstore prove, and verify of what it wrote: with the contract, offline, and altered in every field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import logstore
from logstore.errors import NotStored, Refused
from tests.builders import GENESIS_MS, a_key
from tests.docstring_examples import OF_BUNDLES, run_examples
from tests.integration.logstore.conftest import Run
from tests.stored_network import STREAMS, StoredNetwork, a_stored_record
from validator.protocol.codec.message import make_record
from validator.protocol.codec.signatures import sign_message
from validator.protocol.codec.stored_message import StoredMessage, decode_stored, encode_stored
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Digest, Root
from validator.protocol.parameters import format_network


def prove(run: Run, at_ms: int, *more: str) -> Path:
    """The one file that a proof of this time was written to."""
    ran = run("prove", STREAMS[0], str(GENESIS_MS + at_ms), "--json", *more)
    assert ran.status == 0, ran.err
    (said,) = ran.document
    assert said["message"]["timestamp_ms"] == GENESIS_MS + at_ms
    return Path(said["file"])


def test_a_messages_proof_is_verified_against_the_contract(stored: StoredNetwork, run: Run) -> None:
    path = prove(run, 300)
    ran = run("verify", path, "--json")
    assert (ran.status, ran.err) == (0, "")
    said = ran.document
    assert said["message"]["content"] == '{"number":3,"unit":"K"}'
    assert said["message"]["publisher"] == f"0x{a_key(1).address.hex()}"
    assert (said["bundle"], said["instance"]) == (0, f"window:{GENESIS_MS}")
    assert said["root"] == f"0x{stored.roots[0].hex()}"
    assert said["contract"]["final"]
    assert said["signature_checked"]
    assert said["proves"] == ("this message is in bundle 0, whose root the contract holds, and its publisher signed it")
    assert said["leaves_open"] == ""
    assert "verified\n" in run("verify", path).out


def test_offline_a_proof_is_worth_what_the_root_is(
    stored: StoredNetwork, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prove(run, 300)
    monkeypatch.setenv("LOGSTORE_RPC_URLS", "http://127.0.0.1:1")
    ran = run("verify", path, "--offline", "--json")
    assert ran.status == 0
    assert "if the root" in ran.document["proves"]
    assert "whether the contract holds this root" in ran.document["leaves_open"]
    ran = run("verify", path, "--offline", "--root", f"0x{stored.roots[0].hex()}", "--json")
    assert (ran.status, ran.document["leaves_open"]) == (0, "")
    ran = run("verify", path, "--offline", "--root", f"0x{stored.roots[1].hex()}", "--json")
    assert (ran.status, ran.document["field"]) == (1, "proof.anchor")


def test_a_message_that_came_too_late_is_found_in_a_later_bundles_late_set(run: Run, tmp_path: Path) -> None:
    path = prove(run, 650)
    said = run("verify", path, "--json").document
    assert (said["bundle"], said["instance"]) == (2, "late:2")
    assert said["message"]["sequence_number"] == 60
    (cache,) = (tmp_path / "cache").iterdir()
    held = sorted(file.name.partition("-")[0] for file in (cache / "bundles").iterdir())
    assert held == ["0", "2"], "of bundle 1, whose late set is empty, the manifest is enough"


def test_several_times_give_several_files(run: Run, tmp_path: Path) -> None:
    times = [str(GENESIS_MS + at_ms) for at_ms in (100, 4_500, 8_102)]
    ran = run("prove", STREAMS[0], *times, "--output", "proofs")
    assert ran.status == 0
    assert ran.out.endswith("3 proofs\n")
    paths = sorted((tmp_path / "proofs").iterdir())
    assert len(paths) == 3
    assert [run("verify", path).status for path in paths] == [0, 0, 0]


def test_the_same_proof_is_written_once(run: Run) -> None:
    assert prove(run, 300) == prove(run, 300)


def test_filters_choose_among_the_messages_of_a_time(run: Run) -> None:
    own = f"0x{a_key(1).address.hex()}"
    assert prove(run, 300, "--partition", "1", "--sequence", "3", "--publisher", own)
    for other in (["--partition", "0"], ["--sequence", "4"], ["--publisher", "0x01"]):
        assert run("prove", STREAMS[0], str(GENESIS_MS + 300), *other).status == 3


def test_what_is_not_stored_is_status_3(run: Run) -> None:
    ran = run("prove", STREAMS[0], str(GENESIS_MS + 301), "--json")
    assert (ran.status, ran.document["verdict"]) == (3, "not stored")
    assert run("prove", "0xnobody/nothing", str(GENESIS_MS)).status == 3
    assert run("prove", STREAMS[0], "-1h").status == 3
    assert run("prove", STREAMS[0], "--wat").status == 2
    assert run("prove", STREAMS[0], str(GENESIS_MS), "--publisher", "somebody").status == 2


def altered(stored: StoredMessage) -> dict[str, StoredMessage]:
    """The file with one thing changed, by the field at which it must be refused."""
    record = a_stored_record(300, 3, partition=1)
    other = make_record(msgspec.structs.replace(record.message, content=b"another"))
    forged = make_record(sign_message(a_key(9), record.message))
    entry, window, bundle = stored.proof.entry, stored.proof.window, stored.proof.bundle
    assert bundle is not None

    def proof(**changes: Any) -> StoredMessage:
        return replace(stored, proof=replace(stored.proof, **changes))

    return {
        "chain_id": replace(stored, chain_id=5),
        "report_manager": replace(stored, report_manager=Address(bytes(20))),
        "root": replace(stored, root=Root(b"\x01" * 32)),
        "number": replace(stored, number=1),
        "content": replace(stored, canonical=other.canonical),
        "signature": replace(stored, canonical=forged.canonical),
        "index": proof(entry=replace(entry, index=entry.index + 1)),
        "count": proof(entry=replace(entry, count=entry.count + 1)),
        "flags": proof(entry=replace(entry, signed_bytes=entry.signed_bytes + 1)),
        "sibling": proof(entry=replace(entry, path=(Digest(bytes(32)), *entry.path[1:]))),
        "rest": proof(window=replace(window, rest_hash=Digest(bytes(32)))),
        "leaves": proof(bundle=replace(bundle, leaves=bundle.leaves + 1)),
    }


def test_a_file_altered_anywhere_is_refused(run: Run, tmp_path: Path) -> None:
    stored = decode_stored(prove(run, 300).read_bytes())
    fields = {}
    for what, changed in altered(stored).items():
        path = tmp_path / "altered.proof"
        path.write_bytes(encode_stored(changed))
        ran = run("verify", path, "--json")
        assert ran.status == 1, what
        fields[what] = ran.document["field"]
    assert fields["chain_id"] == "chain_id"
    assert fields["report_manager"] == "report_manager"
    assert fields["number"] == "root"
    assert {fields[what] for what in ("root", "content", "signature", "flags", "sibling", "rest")} == {"proof.anchor"}


def test_every_flipped_byte_of_a_proof_is_refused(run: Run, tmp_path: Path) -> None:
    good = prove(run, 300).read_bytes()
    path = tmp_path / "flipped.proof"
    for at in range(20, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert run("verify", path, "--offline").status == 1, f"byte {at}"
    path.write_bytes(good[:-1])
    assert run("verify", path, "--offline").status == 1


def test_a_forged_signature_is_refused_though_its_place_is_proven(
    stored: StoredNetwork, run: Run, tmp_path: Path
) -> None:
    """A founder of a network of his own may store what nobody signed; each message still answers for itself."""
    from logstore.stored_message import verify_stored
    from tests.bundle_builder import an_outcome, make_entries
    from validator.protocol.codec.manifest import bundle_leaves, bundle_root
    from validator.protocol.codec.outcome import outcome_digest
    from validator.protocol.errors import ValidatorError
    from validator.protocol.model import InstanceId, InstanceKind
    from validator.protocol.proof import build_message

    record = make_record(sign_message(a_key(9), a_stored_record(300, 3).message))
    outcome = an_outcome(InstanceId(InstanceKind.WINDOW, GENESIS_MS), [record])
    late = an_outcome(InstanceId(InstanceKind.LATE, 0), [])
    header, digests = stored.manifests[0].header, [outcome_digest(outcome)]
    root = bundle_root(header, digests, outcome_digest(late))
    leaves = bundle_leaves(header, digests, outcome_digest(late))
    proof = build_message(outcome, make_entries([record])[0].stream_part, [record.leaf], 0, leaves)
    path = tmp_path / "forged.proof"
    network = stored.network
    forged = StoredMessage(network.chain_id, network.contracts.report_manager, 0, root, record.canonical, proof)
    path.write_bytes(encode_stored(forged))
    with pytest.raises(ValidatorError, match=r"message\.signature: not the publisher's"):
        verify_stored(path.name, path.read_bytes(), network)
    assert run("verify", path, "--offline").status == 1


def test_a_proof_of_another_network_is_refused(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    path = prove(run, 300)
    file = tmp_path / "other.toml"
    contracts = replace(stored.network.contracts, report_manager=Address(b"\x01" * 20))
    file.write_text(format_network(replace(stored.network, contracts=contracts)))
    ran = run("verify", path, "--offline", "--network", file, "--json")
    assert (ran.status, ran.document["field"]) == (1, "report_manager")


def test_a_program_proves_and_verifies_messages_and_spans(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    at_ms = GENESIS_MS + 300
    with logstore.connect() as network:
        (proof,) = network.prove(STREAMS[0], at_ms, partition=1)
        (span,) = network.prove(STREAMS[0], start=at_ms, end=at_ms + 1, partition=1)
        assert [proof.messages, proof.bundles] == [span.messages, span.bundles[:1]]
        path = proof.save(tmp_path / "proofs")
        assert [path, path.read_bytes()] == [tmp_path / "proofs" / f"message-{at_ms}-3-p1.proof", proof.data]
        for held in (proof, proof.data, path, str(path)):
            verdict = network.verify(held)
            assert (verdict.leaves_open, "the contract holds" in verdict.proves) == ("", True)
        assert "is in bundle 0 if the root" in network.verify(proof, offline=True).proves
        assert "the 1 messages are all" in network.verify(span).proves
        for bundle in (0, stored.files[0], stored.files[0].read_bytes()):
            root = f"0x{stored.roots[0].hex()}"
            assert "contract's committee signed" in network.verify(bundle, roots=[root], signatures=True).proves
        with pytest.raises(Refused, match="not the one that you named"):
            network.verify(0, roots=[stored.roots[1]])
        with pytest.raises(Refused, match=r"proof: proof\.anchor"):
            network.verify(encode_stored(altered(decode_stored(proof.data))["content"]))
        with pytest.raises(NotStored):
            network.prove(STREAMS[0], at_ms + 1)
        questions: list[dict[str, Any]] = [{}, {"time": at_ms, "start": at_ms}, {"start": at_ms, "sequence": 1}]
        for question in questions:
            with pytest.raises(ConfigError):
                network.prove(STREAMS[0], **question)
        for nothing in (99, "nothing.parquet", str(tmp_path)):
            with pytest.raises(ConfigError):
                network.verify(nothing)


def test_what_the_methods_docstrings_show_of_bundles_is_so(run: Run) -> None:
    with logstore.connect() as network:
        run_examples(OF_BUNDLES, network=network, stream=STREAMS[0])


async def test_a_program_with_an_event_loop_does_the_same(run: Run) -> None:
    async with logstore.connect_async() as network:
        (proof,) = await network.prove(STREAMS[0], GENESIS_MS + 300, partition=1)
        assert (await network.verify(proof.data)).leaves_open == ""
