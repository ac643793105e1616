"""The upload of a bundle against the development gateway, a real process on loopback."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import paths
from tests.data_items import MARKS, encode_bundle, make_item
from tests.gateway_process import GatewayProcess
from tests.integration.net.arweave.conftest import FAST
from validator.net.arweave import storage as storage_module
from validator.net.arweave.storage import ArweaveStorage, is_dropped
from validator.net.arweave.wallet import ArweaveWallet
from validator.ports.storage import BundleStorage, PreparedUpload, StorageState, StorageStatus
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave_text import encode_base64url, encode_storage_id
from validator.protocol.errors import (
    ConfigError,
    Disagreement,
    MalformedInput,
    RemoteFault,
    TransientError,
    UnknownOutcome,
)
from validator.protocol.model import StorageId

Build = Callable[..., ArweaveStorage]


def upload(storage: ArweaveStorage, bundle: Any) -> Any:
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    return prepared


@pytest.mark.parametrize("size", [1, 262_143, 262_144, 262_145, 524_288, 600_000, 1_310_721])
def test_a_bundle_of_any_size_is_paid_once_and_comes_back(
    size: int, storage: ArweaveStorage, funded: Any, build_bundle: Any, tmp_path: Path
) -> None:
    port: BundleStorage = storage
    bundle = build_bundle(size)
    prepared = upload(storage, bundle)
    assert port.fetch_status(prepared.storage_id).state == "pending"
    funded.mine(3)
    assert port.fetch_status(prepared.storage_id) == StorageStatus(
        StorageState.CONFIRMED, 3, funded.stats()["height"] - 2
    )
    stored = port.fetch_transaction(prepared.storage_id)
    assert (stored.owner, stored.data_size, list(stored.tags)) == (prepared.owner, size, bundle.tags)
    target = tmp_path / "back"
    assert port.fetch_data(prepared.storage_id, target, 1 << 22) == size
    assert target.read_bytes() == bundle.content
    assert prepared.data_sha256 == hashlib.sha256(bundle.content).digest()
    assert funded.paid(bundle.root) == 1


def test_nothing_is_sent_before_the_caller_has_saved(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    before = funded.stats()["transactions"]
    storage.prepare(bundle.path, bundle.tags)
    assert funded.stats()["transactions"] == before


def test_a_crash_after_any_step_resumes_and_pays_once(
    funded: Any, build_storage: Build, bundle: Any, tmp_path: Path
) -> None:
    prepared = build_storage(funded.url).prepare(bundle.path, bundle.tags)
    for steps in (1, 2, 2):
        fresh = build_storage(funded.url)  # another process knows only what was saved
        fresh.post(prepared)
        if steps == 2:
            fresh.seed(prepared, bundle.path)
        funded.mine()
    balance = int(funded.stats()["balances"][encode_base64url(prepared.owner)])
    build_storage(funded.url).post(prepared)
    funded.mine()
    assert funded.paid(bundle.root) == 1
    assert int(funded.stats()["balances"][encode_base64url(prepared.owner)]) == balance
    assert build_storage(funded.url).fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20) == 600_000


def test_signing_again_with_the_same_anchor_gives_the_same_id(storage: ArweaveStorage, bundle: Any) -> None:
    first, second = (storage.prepare(bundle.path, bundle.tags) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["cut_before", "cut_after"])
def test_a_lost_answer_is_sent_again_as_it_was(kind: str, storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail(kind, "/tx$", method="POST")
    funded.fail(kind, "/chunk$", method="POST", times=2)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    funded.mine()
    assert funded.faults_left() == 0
    assert funded.paid(bundle.root) == 1
    assert funded.stats()["transactions"][-1]["complete"]


def test_an_answer_that_never_comes_is_looked_up(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("cut_after", "/tx$", method="POST", times=3)
    storage.post(prepared)
    funded.mine()
    assert funded.paid(bundle.root) == 1


def test_an_outcome_that_nobody_can_tell_is_called_unknown(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("cut_before", "/tx", times=50)
    with pytest.raises(UnknownOutcome):
        storage.post(prepared)
    assert storage.fetch_status(prepared.storage_id).state == "unknown"


def test_server_errors_and_limits_are_waited_out(funded: Any, build_storage: Build, bundle: Any) -> None:
    waits: list[float] = []
    storage = build_storage(funded.url, sleep=waits.append)
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("answer", "/tx$", method="POST", status=503)
    funded.fail("answer", "/chunk$", method="POST", status=429, headers={"retry-after": "7"}, times=2)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    assert max(waits) == 7
    assert funded.faults_left() == 0


def test_a_stalled_or_flooding_gateway_is_asked_again(build_storage: Build, funded: Any, bundle: Any) -> None:
    storage = build_storage(funded.url, limits=replace(FAST, read_s=2, request_s=3))
    funded.fail("slow", "/price/", seconds=6)
    funded.fail("answer", "/tx_anchor", status=502)
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("endless", "/tx/")
    assert storage.fetch_status(prepared.storage_id).state == "unknown"
    assert storage.fetch_status(prepared.storage_id).state == "missing"
    assert funded.faults_left() == 0


def test_a_header_without_money_behind_it_is_never_signed(storage: ArweaveStorage, bundle: Any) -> None:
    with pytest.raises(TransientError, match="balance"):
        storage.prepare(bundle.path, bundle.tags, open_uploads=10**6)


def test_the_reward_carries_a_margin_and_stays_below_the_cap(funded: Any, build_storage: Build, bundle: Any) -> None:
    price = build_storage(funded.url).fetch_price(600_000)
    assert build_storage(funded.url).prepare(bundle.path, bundle.tags).reward == -(-price * 105 // 100)
    assert build_storage(funded.url, reward_cap=price + 1).prepare(bundle.path, bundle.tags).reward == price + 1
    with pytest.raises(TransientError, match="cap"):
        build_storage(funded.url, reward_cap=price - 1).prepare(bundle.path, bundle.tags)


def test_a_refused_header_says_why(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    tx = arweave.decode_transaction_json(prepared.header)
    forged = replace(prepared, header=arweave.encode_transaction_json(replace(tx, reward=tx.reward + 1)))
    with pytest.raises(RemoteFault, match=r"Transaction verification failed\."):
        storage.post(forged)


def test_an_anchor_past_its_life_is_refused_and_only_then_counts_as_dropped(
    storage: ArweaveStorage, funded: Any, bundle: Any
) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.mine(51)
    with pytest.raises(RemoteFault, match="Invalid anchor"):
        storage.post(prepared)
    status = storage.fetch_status(prepared.storage_id)
    assert status.state == "missing"
    assert not is_dropped(prepared, status, storage.fetch_height())
    funded.mine(18)
    assert is_dropped(prepared, status, storage.fetch_height())
    assert not is_dropped(prepared, StorageStatus(StorageState.UNKNOWN), storage.fetch_height())


def test_posting_again_long_after_mining_is_a_success(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = upload(storage, bundle)
    funded.mine(100)
    storage.post(prepared)
    storage.seed(prepared, bundle.path)
    assert funded.paid(bundle.root) == 1


def test_a_lost_chunk_makes_the_data_unreadable_until_it_is_seeded_again(
    storage: ArweaveStorage, funded: Any, bundle: Any, tmp_path: Path
) -> None:
    prepared = upload(storage, bundle)
    funded.mine()
    funded.control(f"forget/{encode_base64url(prepared.storage_id)}/300000")
    with pytest.raises(TransientError):
        storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20)
    assert not (tmp_path / "back").exists()
    storage.seed(prepared, bundle.path)
    assert storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20) == 600_000


def test_wrong_bytes_never_reach_the_destination(
    storage: ArweaveStorage, funded: Any, build_storage: Build, bundle: Any, tmp_path: Path
) -> None:
    prepared = upload(storage, bundle)
    funded.mine()
    funded.fail("wrong_bytes", "/raw/")
    with pytest.raises(RemoteFault, match="data root"):
        storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20)
    assert [p.name for p in tmp_path.iterdir()] == [bundle.path.name]
    funded.fail("wrong_bytes", "/raw/")
    both = build_storage(funded.url, funded.same_under_another_name)
    assert both.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20) == 600_000
    assert funded.faults_left() == 0


def test_data_beyond_the_limit_is_refused_before_it_is_read(
    storage: ArweaveStorage, funded: Any, bundle: Any, tmp_path: Path
) -> None:
    prepared = upload(storage, bundle)
    funded.mine()
    with pytest.raises(RemoteFault, match="limit 599999"):
        storage.fetch_data(prepared.storage_id, tmp_path / "back", 599_999)


def test_another_file_is_not_seeded_under_a_prepared_header(
    storage: ArweaveStorage, bundle: Any, build_bundle: Any
) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    with pytest.raises(Disagreement):
        storage.seed(prepared, build_bundle(600_000).path)


def test_every_gateway_gets_header_and_chunks_even_if_it_was_never_posted_to(
    funded: Any, build_storage: Build, bundle: Any
) -> None:
    storage = build_storage(funded.url, funded.same_under_another_name)
    prepared = storage.prepare(bundle.path, bundle.tags)
    results = storage.seed(prepared, bundle.path)
    assert [(r.taken, r.total, r.is_complete, r.is_kept) for r in results] == [(0b111, 3, True, True)] * 2


def test_a_gateway_that_is_down_does_not_stop_the_others(
    funded: Any, build_storage: Build, bundle: Any, tmp_path: Path
) -> None:
    storage = build_storage("http://127.0.0.1:9", funded.url, funded.same_under_another_name)
    prepared = upload(storage, bundle)
    funded.mine(2)
    assert storage.fetch_status(prepared.storage_id).confirmations == 2
    assert storage.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 20) == 600_000
    down = next(iter(storage.gateways)).circuit.state
    assert down.failures > 0
    assert down.last_error.startswith("127.0.0.1:9: ConnectError: ")
    two = build_storage("http://127.0.0.1:9", funded.url)
    assert str(two.seed(prepared, bundle.path)[0]).startswith("127.0.0.1:9 took 0 of 3 (")
    assert two.fetch_status(StorageId(bytes(32))).state == "unknown"


def test_uploads_are_found_by_root_and_owner_only(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = upload(storage, bundle)
    assert storage.find_uploads(bundle.root, [prepared.owner]) == [prepared.storage_id]
    funded.mine()
    assert storage.find_uploads(bundle.root, [bytes(32), prepared.owner]) == [prepared.storage_id]
    assert storage.find_uploads(bundle.root, [bytes(32)]) == []
    assert storage.find_uploads("00" * 32, [prepared.owner]) == []
    assert storage.find_uploads(bundle.root, []) == []


def test_a_members_data_item_with_our_tags_is_no_upload(
    storage: ArweaveStorage, funded: GatewayProcess, wallet: ArweaveWallet, bundle: Any, tmp_path: Path
) -> None:
    carrier = tmp_path / "carrier"
    item = make_item(wallet, bundle.tags, bundle.content)
    carrier.write_bytes(encode_bundle([item]))
    carried = storage.prepare(carrier, MARKS)
    storage.post(carried)
    storage.seed(carried, carrier)
    funded.mine()
    listed = funded.client.get(f"{funded.url}/raw/{encode_storage_id(item.id)}")
    assert listed.content == bundle.content, "gateways serve it like a transaction"
    assert storage.find_uploads(bundle.root, [wallet.address]) == [], "nobody waits for what no header carries"
    prepared = upload(storage, bundle)
    assert storage.find_uploads(bundle.root, [wallet.address]) == [prepared.storage_id]


def test_a_chunk_before_its_header_waits_for_it(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("answer", "/tx$", method="POST", status=429, times=3)
    (seed,) = storage.seed(prepared, bundle.path)
    assert (seed.taken, seed.is_complete) == (0, False)
    assert "HTTP 429" in seed.error
    funded.fail(
        "answer", "/chunk$", method="POST", status=400, body=json.dumps({"error": "data_root_not_found"}), times=2
    )
    (seed,) = storage.seed(prepared, bundle.path)
    assert seed.is_complete
    assert funded.faults_left() == 0


def test_a_gateway_that_does_not_keep_chunks_is_told_apart(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("answer", "/chunk$", method="POST", status=303, body="")
    (result,) = storage.seed(prepared, bundle.path)
    assert (result.taken, result.is_complete, result.is_kept) == (0b111, True, False)


def test_a_lasting_chunk_error_stops_that_gateway(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    funded.fail("answer", "/chunk$", method="POST", status=400, body=json.dumps({"error": "invalid_proof"}), times=3)
    (result,) = storage.seed(prepared, bundle.path)
    assert "invalid_proof" in result.error
    assert not result.is_complete


@pytest.mark.parametrize(
    ("tags", "reason"), [([("a", "b" * 2048)], "2049 bytes"), ([("", "b")], "empty"), ([("a", "")], "empty")]
)
def test_tags_that_do_not_fit_are_refused_first(
    tags: list[tuple[str, str]], reason: str, storage: ArweaveStorage, bundle: Any
) -> None:
    with pytest.raises(MalformedInput, match=reason):
        storage.prepare(bundle.path, tags)


def test_settings_that_can_not_work_are_named(build_storage: Build) -> None:
    for urls, reason in (
        ([], "none configured"),
        (["ftp://gateway"], "write https"),
        (["https://"], "write https"),
        (["https://a.example/", "https://a.example"], "twice"),
    ):
        with pytest.raises(ConfigError, match=reason):
            build_storage(*urls)


def test_an_observer_reads_without_a_wallet(funded: Any, build_storage: Build, bundle: Any) -> None:
    prepared = upload(build_storage(funded.url), bundle)
    funded.mine()
    observer = build_storage(funded.url, wallet=None)
    assert observer.fetch_transaction(prepared.storage_id).data_size == 600_000
    with pytest.raises(ConfigError, match="wallet"):
        observer.prepare(bundle.path, bundle.tags)


def test_an_announced_header_is_posted_and_seeded_by_another_and_paid_for_once(
    funded: Any, build_storage: Build, bundle: Any, tmp_path: Path
) -> None:
    """Who prepared it never sends a byte; the other has the same file, and no wallet."""
    prepared = build_storage(funded.url).prepare(bundle.path, bundle.tags)
    other = build_storage(funded.url, wallet=None)
    header = prepared.header.encode()
    said = other.read_header(prepared.storage_id, header)
    assert (said.owner, list(said.tags), said.data_size) == (prepared.owner, bundle.tags, 600_000)
    assert other.compute_data_root(bundle.path) == said.data_root
    theirs = PreparedUpload(said.storage_id, said.owner, header.decode(), 0, 0, said.data_size, prepared.data_sha256)
    for _ in range(2):
        other.post(theirs)
        other.seed(theirs, bundle.path)
    funded.mine()
    assert other.fetch_data(prepared.storage_id, tmp_path / "back", 1 << 22) == 600_000
    assert funded.paid(bundle.root) == 1


def test_a_header_is_that_of_its_id_sound_and_in_the_form_that_is_sent(storage: ArweaveStorage, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    header = prepared.header.encode()
    fields = json.loads(header)
    for wrong in (
        b"{}",
        b" " + header,
        json.dumps({**fields, "more": "1"}).encode(),
        json.dumps({**fields, "reward": "1"}).encode(),
    ):
        with pytest.raises(MalformedInput):
            storage.read_header(prepared.storage_id, wrong)
    with pytest.raises(MalformedInput, match="another transaction"):
        storage.read_header(StorageId(bytes(32)), header)


def test_the_clients_second_opinion_counts(
    storage: ArweaveStorage, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "compute_client_signature_data", lambda *_: b"")
    with pytest.raises(Exception, match="arweave-python-client"):
        storage.prepare(bundle.path, bundle.tags)


def test_uploading_leaves_the_sigpipe_handler_alone(tmp_path: Path, funded: Any) -> None:
    vectors = paths.VECTORS / "arweave.json"
    program = f"""
import json, signal, sys
from pathlib import Path
before = signal.getsignal(signal.SIGPIPE)
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
wallet = ArweaveWallet.from_jwk(json.loads(Path({str(vectors)!r}).read_text())["keys"]["rsa"])
path = Path({str(tmp_path / "data")!r})
path.write_bytes(b"x")
ArweaveStorage([{funded.url!r}], wallet, reward_cap=10**12).prepare(path, [("a", "b")])
assert "arweave" in sys.modules
assert "arweave.transaction_uploader" not in sys.modules
assert signal.getsignal(signal.SIGPIPE) == before == signal.SIG_IGN
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_the_last_bytes_come_alone(storage: ArweaveStorage, funded: Any, bundle: Any) -> None:
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    funded.mine()
    storage.seed(prepared, bundle.path)
    assert storage.fetch_tail(prepared.storage_id, 1_000) == (600_000, bundle.content[-1_000:])
    assert storage.fetch_tail(prepared.storage_id, 1 << 20) == (600_000, bundle.content)
