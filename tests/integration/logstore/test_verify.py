"""logstore verify: what it accepts, what it refuses and by which field, and what it could not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.builders import GENESIS_MS, a_key
from tests.bundle_builder import MEMBERS, a_config, a_manifest, rows_of
from tests.integration.logstore.conftest import Run
from tests.stored_network import WINDOWS, StoredNetwork, a_stored_record, config_of, funded_storage, upload
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.message import make_record
from validator.protocol.codec.signatures import sign_message
from validator.protocol.model import Manifest, Record, Root
from validator.protocol.parameters import format_network


def write(path: Path, manifest: Manifest, windows: tuple[tuple[Record, ...], ...]) -> Path:
    write_bundle(path, manifest, rows_of(manifest, windows))
    return path


@pytest.mark.parametrize("kind", ["file", "id", "number"])
def test_a_bundle_is_verified_against_the_contract(stored: StoredNetwork, run: Run, kind: str) -> None:
    target = {"file": stored.files[2], "id": stored.id_text(2), "number": "2"}[kind]
    ran = run("verify", target, "--json")
    assert (ran.status, ran.err) == (0, "")
    said = ran.document
    assert (said["verdict"], said["bundle"], said["messages"]) == ("verified", 2, 3)
    assert said["root"] == f"0x{stored.roots[2].hex()}"
    assert said["contract"]["storage_id"] == stored.id_text(2)
    assert said["contract"]["final"]
    assert said["proves"] == (
        "the 3 messages of the file are exactly those that the contract's committee signed as bundle 2"
    )
    assert said["leaves_open"] == ""


def test_offline_says_what_a_file_alone_does_not_prove(
    stored: StoredNetwork, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGSTORE_RPC_URLS", "http://127.0.0.1:1")
    ran = run("verify", stored.files[0], "--offline", "--json")
    assert ran.status == 0
    assert ran.document["contract"] is None
    assert ran.document["network"]
    assert "3 of the 4 members that the file names" in ran.document["proves"]
    assert "whether these members are the network's" in ran.document["leaves_open"]
    monkeypatch.delenv("LOGSTORE_NETWORK_FILE")
    ran = run("verify", stored.files[0], "--offline")
    assert ran.status == 0
    assert "not compared: no network file" in ran.out
    assert "leaves open" in ran.out


def test_a_flipped_byte_is_refused_or_changes_no_message(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    """Some bytes of a page's header say nothing; whatever is verified holds the very same rows."""
    good = stored.files[1].read_bytes()
    refused = 0
    for at in range(0, len(good), len(good) // 8):
        path = tmp_path / "flipped.parquet"
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        ran = run("verify", path, "--json")
        if ran.status == 1:
            refused += 1
            assert ran.document["verdict"] == "refused"
            assert ran.document["field"]
            assert ran.err.startswith("logstore: refused: flipped.parquet: ")
        else:
            assert ran.status == 0
            assert pq.read_table(path).equals(pq.read_table(stored.files[1]))
    assert refused >= 6


def test_a_bundle_of_founders_of_their_own_is_sound_offline_and_refused_by_the_contract(
    stored: StoredNetwork, run: Run, tmp_path: Path
) -> None:
    """All certificates are in order, of a committee that nobody but its members chose."""
    forgers = sorted((a_key(700 + n) for n in range(4)), key=lambda k: k.address)
    config = replace(config_of(stored.network), committee=tuple(k.address for k in forgers))
    windows = ((a_stored_record(10, 1, content=b"never sent"),), ())
    manifest = a_manifest(windows, config=config, signers=forgers[:3])
    path = write(tmp_path / "forged.parquet", manifest, windows)
    assert run("verify", path, "--offline").status == 0
    ran = run("verify", path, "--json")
    assert ran.status == 1
    assert (ran.document["field"], ran.document["subject"]) == ("bundle.root", "forged.parquet")
    assert f"the contract holds 0x{stored.roots[0].hex()}" in ran.document["reason"]


def test_a_message_that_its_publisher_never_signed_is_named(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    """A whole committee may lie; each message still answers for itself."""
    true = a_stored_record(300, 3)
    forged = make_record(sign_message(a_key(9), true.message))
    windows = ((a_stored_record(200, 2), forged), ())
    manifest = a_manifest(windows, config=config_of(stored.network))
    path = write(tmp_path / "unsigned", manifest, windows)
    assert run("verify", path, "--offline").status == 0
    ran = run("verify", path, "--offline", "--signatures", "--json")
    assert (ran.status, ran.document["field"]) == (1, "message.signature")
    assert f"{true.message.stream_id}/0 at 2023-11-14T22:13:20.300Z, number 3: " in ran.document["reason"]


@pytest.mark.parametrize("target", ["file", "0"])
def test_signatures_of_a_true_bundle_hold(stored: StoredNetwork, run: Run, target: str) -> None:
    ran = run("verify", stored.files[0] if target == "file" else target, "--signatures", "--json")
    assert (ran.status, ran.document["signatures_checked"]) == (0, 13)
    assert ran.document["proves"].endswith("; 13 publishers' signatures were checked")


def test_a_root_that_the_reader_knows_needs_no_contract(stored: StoredNetwork, run: Run) -> None:
    ran = run("verify", stored.files[0], "--offline", "--root", stored.roots[0].hex(), "--json")
    assert (ran.status, ran.document["leaves_open"]) == (0, "")
    assert "whose root you named" in ran.document["proves"]
    ran = run("verify", stored.files[0], "--offline", "--root", stored.roots[1].hex(), "--json")
    assert (ran.status, ran.document["field"]) == (1, "bundle.root")
    assert run("verify", stored.files[0], "--root", "0x12").status == 2


def test_a_bundle_that_the_contract_does_not_have_is_refused(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    windows = (WINDOWS[0][0][:0], ())
    manifest = a_manifest(windows, config=config_of(stored.network), number=3, first_ms=GENESIS_MS + 24_000)
    ran = run("verify", write(tmp_path / "early", manifest, windows), "--json")
    assert ran.status == 1
    assert ran.document["field"] == "header.number"
    assert "accepted 3 bundles" in ran.document["reason"]


def test_a_bundle_of_another_network_is_refused_by_the_field_in_which_they_differ(run: Run, tmp_path: Path) -> None:
    windows = ((a_stored_record(10, 1),), ())
    manifest = a_manifest(windows, config=a_config())
    path = write(tmp_path / "foreign", manifest, windows)
    for offline in ([], ["--offline"]):
        ran = run("verify", path, "--json", *offline)
        assert ran.status == 1
        assert ran.document["field"] == "config.deployment_parent_hash"


def test_older_parameters_in_the_network_file_are_remarked_and_the_contract_decides(
    stored: StoredNetwork, run: Run, tmp_path: Path
) -> None:
    older = replace(stored.network, sets=(replace(stored.network.sets[0], rent=7),))
    file = tmp_path / "older.toml"
    file.write_text(format_network(older))
    ran = run("verify", stored.files[0], "--network", file, "--json")
    assert ran.status == 0
    assert ran.document["remarks"] == ["the network file has other parameters for epoch 0: parameters.rent"]


def test_a_transaction_with_other_tags_than_its_bundles_is_refused(stored: StoredNetwork, run: Run) -> None:
    storage = funded_storage(stored.gateway)
    tags = [("App-Name", "LogStore"), ("Bundle-Root", Root(bytes(32)).hex())]
    found = upload(storage, stored.gateway, stored.network, stored.files[0], stored.manifests[0], tags)
    storage.close()
    ran = run("verify", encode_storage_id(found), "--json")
    assert ran.status == 1
    assert ran.document["field"].startswith("tags.")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["verify", "no-such-file"], "no-such-file"),
        (["verify", "9"], "bundle 9"),
        (["verify", "no-such-file", "--offline"], "no-such-file"),
        (["verify", "."], "a folder"),
        (["verify"], "Missing argument"),
        (["verify", "0", "--network", "missing.toml"], "missing.toml"),
        (["verify", "0", "--rpc", "ftp://example.com"], "rpc_urls"),
        (["bundle", "show", "17"], "bundle 17"),
        (["bundle", "fetch"], "--from"),
        (["bundle", "fetch", "0", "--verify", "some"], "--verify"),
        (["bundle", "list", "--from", "yesterday"], "yesterday"),
        (["bundle", "list", "--from", "now", "--to", "-1h"], "--from"),
        (["bundle", "list", "--limit", "0"], "--limit"),
        (["bundle", "list", "--wat"], "--wat"),
    ],
)
def test_wrong_words_are_status_2_and_one_line(run: Run, words: list[str], named: str) -> None:
    ran = run(*words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert named in ran.err


def test_what_is_not_there_is_status_3(stored: StoredNetwork, run: Run) -> None:
    nobody = "http://127.0.0.1:1"
    ran = run("verify", stored.files[0], "--rpc", nobody, "--json")
    assert (ran.status, ran.document["verdict"]) == (3, "not fetched")
    assert run("bundle", "list", "--rpc", nobody).status == 3
    ran = run("bundle", "fetch", "0", "--gateway", nobody)
    assert ran.status == 3
    assert "127.0.0.1:1" in ran.err
    assert run("verify", "A" * 43).status == 3


@pytest.mark.parametrize("start", ["-", "--", "-V", "-h"])
@pytest.mark.parametrize("scheme", ["", "ar://"])
def test_an_id_that_begins_with_a_dash_is_an_id(run: Run, scheme: str, start: str) -> None:
    """One in 64 does."""
    name = start + "A" * (43 - len(start))
    ran = run("verify", f"{scheme}{name}", "--json")
    assert (ran.status, ran.document["verdict"]) == (3, "not fetched")


def test_a_chain_of_another_id_is_a_wrong_node(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(format_network(replace(stored.network, chain_id=5)))
    ran = run("bundle", "list", "--network", file)
    assert ran.status == 2
    assert "the nodes are of chain 31337, the network is on 5" in ran.err


def test_a_gateway_that_fails_or_lies_is_passed_over(stored: StoredNetwork, run: Run) -> None:
    """The last one named is asked first."""
    stored.gateway.fail("wrong_bytes", "/raw/", times=1)
    both = ("--gateway", stored.gateway.url, "--gateway", stored.gateway.same_under_another_name)
    ran = run("bundle", "fetch", "0", *both, "--json")
    assert (ran.status, ran.document[0]["verified"]) == (0, True)
    assert stored.gateway.faults_left() == 0
    stored.gateway.fail("wrong_bytes", "/raw/", times=4)
    ran = run("verify", stored.id_text(1))
    assert ran.status == 3
    assert "bytes differ from the signed data root" in ran.err


def test_members_of_the_stored_network_are_those_of_the_contract(stored: StoredNetwork, run: Run) -> None:
    ran = run("network", "show", "--json")
    assert ran.status == 0
    assert ran.document["committee"] == [f"0x{key.address.hex()}" for key in MEMBERS]
    assert ran.document["accepted"] == 3
    assert ran.document["stored_until"] == "2023-11-14T22:13:44Z"
    assert ran.document["contracts"]["report_manager"] == f"0x{stored.network.contracts.report_manager.hex()}"
    assert f"127.0.0.1:{stored.gateway.port}" in run("network", "show").out
