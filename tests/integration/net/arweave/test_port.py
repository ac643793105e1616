"""What the steps may rely on of storage: the same of the adapter over a gateway and of the fake they are tried with.

The adapter runs against the development gateway and, where it is installed, against arlocal (``tests.arlocal``); there
the tests are skipped by name. What arlocal checks less strictly than a node is not asked of it here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.world import MINE_MS, Clock, World, WorldStorage, some_network
from tests.gateway_process import GatewayProcess
from tests.integration.net.arweave.conftest import AR, Bundle
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
from validator.ports.storage import BundleStorage, PreparedUpload, StorageState, is_seeded
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import Disagreement, MalformedInput, RemoteFault, TransientError
from validator.protocol.model import StorageId

MAX_BYTES = 1 << 20
NOBODYS = StorageId(bytes(range(32)))


@dataclass(frozen=True)
class Rig:
    """Storage, and how the network behind it goes on by a block."""

    storage: BundleStorage
    mine: Callable[[], None]


@pytest.fixture(params=["the fake", "the development gateway", "arlocal"])
def rig(
    request: pytest.FixtureRequest,
    gateway: GatewayProcess,
    wallet: ArweaveWallet,
    build_storage: Callable[..., ArweaveStorage],
) -> Rig:
    address = encode_base64url(wallet.address)
    if request.param == "the fake":
        clock = Clock()

        def pass_time() -> None:
            clock.at_ms += MINE_MS

        return Rig(WorldStorage(World(some_network(), clock, [], []), b"member"), pass_time)
    if request.param == "the development gateway":
        gateway.control(f"mint/{address}/{AR}")
        return Rig(build_storage(gateway.url), gateway.mine)
    url: str = request.getfixturevalue("arlocal_url")
    with httpx.Client(trust_env=False) as client:
        client.get(f"{url}/mint/{address}/{10 * AR}").raise_for_status()

    def mine() -> None:
        httpx.get(f"{url}/mine", trust_env=False, timeout=30).raise_for_status()

    # one chunk at a time, since arlocal joins them in the order in which they come
    return Rig(build_storage(url, reward_cap=10 * AR, parallel=1), mine)


def send(rig: Rig, bundle: Bundle) -> PreparedUpload:
    prepared = rig.storage.prepare(bundle.path, bundle.tags)
    rig.storage.post(prepared)
    assert is_seeded(rig.storage.seed(prepared, bundle.path))
    return prepared


@pytest.mark.parametrize("size", [1, 262_144, 262_145, 600_000])
def test_what_is_sent_is_pending_then_confirmed_found_and_given_back(
    size: int, rig: Rig, build_bundle: Callable[[int], Bundle], tmp_path: Path
) -> None:
    bundle, storage = build_bundle(size), rig.storage
    prepared = send(rig, bundle)
    storage_id, back = prepared.storage_id, tmp_path / "back"
    assert prepared.owner == storage.wallet_address()
    assert storage.fetch_header(storage_id) == prepared.header.encode(), "pending or mined"
    rig.mine()
    status = storage.fetch_status(storage_id)
    assert (status.state, status.is_deep(10)) == (StorageState.CONFIRMED, False)
    assert storage.fetch_header(storage_id) == prepared.header.encode()
    transaction = storage.fetch_transaction(storage_id)
    assert transaction == storage.read_header(storage_id, prepared.header.encode())
    assert (transaction.owner, transaction.data_size, list(transaction.tags)) == (prepared.owner, size, bundle.tags)
    assert transaction.data_root == storage.compute_data_root(bundle.path)
    assert storage.fetch_data(storage_id, back, MAX_BYTES) == size
    assert back.read_bytes() == bundle.content
    assert hashlib.sha256(bundle.content).digest() == prepared.data_sha256


def test_uploads_are_found_by_root_and_owner(rig: Rig, build_bundle: Callable[[int], Bundle]) -> None:
    bundle, storage = build_bundle(1000), rig.storage
    prepared = send(rig, bundle)
    assert storage.find_uploads(bundle.root, [prepared.owner]) == [prepared.storage_id], "before it is mined"
    rig.mine()
    assert storage.find_uploads(bundle.root, [bytes(32), prepared.owner]) == [prepared.storage_id]
    assert storage.find_uploads(bundle.root, [bytes(32)]) == []
    assert storage.find_uploads(os.urandom(32).hex(), [prepared.owner]) == []
    assert storage.find_uploads(bundle.root, []) == []


def test_what_is_sent_several_times_is_there_once(rig: Rig, build_bundle: Callable[[int], Bundle]) -> None:
    bundle, storage = build_bundle(1000), rig.storage
    prepared = storage.prepare(bundle.path, bundle.tags)
    for _ in range(2):
        storage.post(prepared)
        storage.seed(prepared, bundle.path)
    rig.mine()
    storage.post(prepared)
    rig.mine()
    assert storage.find_uploads(bundle.root, [prepared.owner]) == [prepared.storage_id]
    assert storage.fetch_status(prepared.storage_id).state == StorageState.CONFIRMED


def test_what_is_only_prepared_and_what_nobody_knows_is_missing(
    rig: Rig, build_bundle: Callable[[int], Bundle], tmp_path: Path
) -> None:
    bundle, storage = build_bundle(1000), rig.storage
    prepared = storage.prepare(bundle.path, bundle.tags)
    for storage_id in (prepared.storage_id, NOBODYS):
        status = storage.fetch_status(storage_id)
        assert status.state == StorageState.MISSING
        assert not storage.fetch_is_dropped(prepared, status), "it can still be sent"
        for fetch in (storage.fetch_transaction, storage.fetch_header):
            with pytest.raises(TransientError):
                fetch(storage_id)
        with pytest.raises(TransientError):
            storage.fetch_data(storage_id, tmp_path / "back", MAX_BYTES)
    assert storage.find_uploads(bundle.root, [prepared.owner]) == []
    assert not (tmp_path / "back").exists()


def test_a_header_without_its_data_is_not_read(rig: Rig, build_bundle: Callable[[int], Bundle], tmp_path: Path) -> None:
    bundle, storage = build_bundle(1000), rig.storage
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    rig.mine()
    with pytest.raises(TransientError):
        storage.fetch_data(prepared.storage_id, tmp_path / "back", MAX_BYTES)
    assert not (tmp_path / "back").exists()


def test_data_beyond_the_limit_and_another_file_are_refused(
    rig: Rig, build_bundle: Callable[[int], Bundle], tmp_path: Path
) -> None:
    bundle, other, storage = build_bundle(1000), build_bundle(1000), rig.storage
    prepared = storage.prepare(bundle.path, bundle.tags)
    storage.post(prepared)
    with pytest.raises(Disagreement):
        storage.seed(prepared, other.path)
    storage.seed(prepared, bundle.path)
    rig.mine()
    with pytest.raises(RemoteFault):
        storage.fetch_data(prepared.storage_id, tmp_path / "back", 999)
    assert not (tmp_path / "back").exists()


def test_a_header_of_another_id_or_with_another_byte_is_refused(
    rig: Rig, build_bundle: Callable[[int], Bundle]
) -> None:
    bundle, storage = build_bundle(1000), rig.storage
    prepared = storage.prepare(bundle.path, bundle.tags)
    header = prepared.header.encode()
    for storage_id, wrong in ((NOBODYS, header), (prepared.storage_id, header.replace(b"1000", b"1001"))):
        with pytest.raises(MalformedInput):
            storage.read_header(storage_id, wrong)
