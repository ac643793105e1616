"""Four validators and a real gateway, a process of its own: whatever happens, one header is paid for, all is there.

The gateway counts the headers that were paid for each bundle root, and keeps the wallets' balances. It mines a block
for each half second of the network's clock. Two of the four have wallets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests import paths
from tests.fakes.small_network import Killed, Member, SmallNetwork
from tests.gateway_process import GatewayProcess, run_gateway
from tests.integration.steps.test_settling_lies import turns
from validator.devnet.gateway.faults import FaultKind
from validator.net.arweave.gateway import Gateway, Limits
from validator.net.arweave.gateways import Gateways
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet, generate_wallet
from validator.net.http.client import Answer
from validator.ports.storage import PreparedUpload, StorageStatus
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.model import StorageId
from validator.protocol.quorum import quorum
from validator.steps.uploads import tags_of

MakeNetwork = Callable[..., SmallNetwork]

AR = 10**12
IMPATIENT = Limits(
    connect_s=2, read_s=1, request_s=1.5, call_s=3, download_s=3, seed_s=5, attempts=2, first_wait_s=0.01, open_s=0.1
)
BLOCK_MS = 500
LONG_MS = 14_000
"""Longer than the stage of ten seconds."""
_RSA = json.loads((paths.VECTORS / "arweave.json").read_text())["keys"]["rsa"]


class Miner:
    """Mines as the network's clock goes, whenever somebody asks for a status."""

    def __init__(self, network: SmallNetwork, gateway: GatewayProcess) -> None:
        self.network = network
        self.gateway = gateway
        self.is_stopped = False
        self._next_ms = 0

    def tick(self) -> None:
        if self.network.clock.now_ms() >= self._next_ms and not self.is_stopped:
            self._next_ms = self.network.clock.now_ms() + BLOCK_MS
            self.gateway.mine()


class MinedStorage(ArweaveStorage):
    """The real adapter; may end its process at one of the chunks that it sends."""

    miner: Miner
    dies_at_chunk: int | None = None

    def __init__(self, url: str, wallet: ArweaveWallet | None) -> None:
        super().__init__([url], wallet, reward_cap=AR, limits=IMPATIENT)
        self.gateways = Gateways([MortalGateway(url, self)])

    def fetch_status(self, storage_id: StorageId) -> StorageStatus:
        self.miner.tick()
        return super().fetch_status(storage_id)


class MortalGateway(Gateway):
    """Where the storage says so, the process that sends a chunk ends before it is sent."""

    def __init__(self, url: str, storage: MinedStorage) -> None:
        super().__init__(url, IMPATIENT)
        self._storage = storage

    def post(
        self, path: str, body: bytes, *, max_bytes: int, accept: tuple[int, ...], has_effect: bool = True
    ) -> Answer:
        if path == "/chunk" and self._storage.dies_at_chunk is not None:
            self._storage.dies_at_chunk -= 1
            if self._storage.dies_at_chunk < 0:
                self._storage.dies_at_chunk = None
                raise Killed
        return super().post(path, body, max_bytes=max_bytes, accept=accept, has_effect=has_effect)


@dataclass
class Uploading:
    """A network about to upload one bundle, and its gateway."""

    network: SmallNetwork
    gateway: GatewayProcess
    miner: Miner
    first: Member
    second: Member
    stranger: ArweaveStorage
    owners: Sequence[str]
    before: dict[str, Any] = field(default_factory=dict)

    def at(self, call: str, action: Callable[[], bool | None], *, times: int = 1, member: Member | None = None) -> None:
        """Just before the call that the first in turn makes: do something; the process ends if that is true."""
        left = iter(range(times))

        def reach(who: Member, task: str, _key: str, at: str) -> bool:
            is_it = who is (member or self.first) and task.startswith("bundle.") and at.startswith(call)
            return bool(action()) if is_it and next(left, None) == times - 1 else False

        self.network.kill_at = reach

    def let_pass(self, milliseconds: int) -> None:
        """The first in turn stands still, the others go on."""
        self.first.idle = True
        end_ms = self.network.clock.now_ms() + milliseconds
        self.network.run(lambda: self.network.clock.now_ms() >= end_ms)
        self.first.idle = False

    def require_paid_once(self) -> None:
        self.network.run_to_final(limit_s=120)
        stats = self.gateway.stats()
        bundle = self.first.store.bundles.load_bundle(0)
        assert bundle is not None
        assert bundle.root is not None
        lines = [
            t for t in stats["transactions"] if t["bundle_root"] == bundle.root.hex() and t["owner"] in self.owners
        ]
        paid = [line for line in lines if line["height"] is not None]
        assert len(paid) == len(lines) == 1
        assert paid[0]["complete"]
        uploads = [u for m in (self.first, self.second) for u in m.store.bundles.load_uploads(0)]
        (reward,) = [u.prepared.reward for u in uploads if encode_base64url(u.prepared.storage_id) == paid[0]["id"]]
        spent = sum(int(self.before["balances"][o]) - int(stats["balances"][o]) for o in self.owners)
        assert spent == reward
        report = self.network.world.reports[0]
        assert encode_base64url(report.storage_id) == paid[0]["id"]
        query = f"SELECT state FROM announcements WHERE storage_id = x'{report.storage_id.hex()}'"
        states = [member.rows(query) for member in self.network.members]
        assert states.count([("verified",)]) >= quorum(len(states)), "who was slower follows the report"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with run_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def wallets() -> list[ArweaveWallet]:
    return [ArweaveWallet.from_jwk(_RSA), *(ArweaveWallet.from_jwk(generate_wallet()) for _ in range(2))]


@pytest.fixture
def uploading(a_network: MakeNetwork, gateway: GatewayProcess, wallets: list[ArweaveWallet]) -> Iterator[Uploading]:
    network = a_network(4)
    network.world.publish(100, json.dumps({"i": os.urandom(16).hex()}).encode())
    network.run_until(0)
    first, second, *_ = turns(network)
    miner = Miner(network, gateway)
    owned = {first.address: wallets[0], second.address: wallets[1]}
    addresses = {member: wallet.address for member, wallet in owned.items()}
    network.world.nodes = tuple(replace(n, arweave=addresses.get(n.address)) for n in network.world.nodes)
    with ExitStack() as stack:
        for member in network.members:
            storage = MinedStorage(gateway.url, owned.get(member.address))
            stack.callback(storage.close)
            storage.miner = miner
            member.storage = storage  # type: ignore[assignment]
            member.restart()
        stranger = ArweaveStorage([gateway.url], wallets[2], reward_cap=AR, limits=IMPATIENT)
        stack.callback(stranger.close)
        for wallet in wallets:
            gateway.control(f"mint/{encode_base64url(wallet.address)}/{AR}")
        owners = [encode_base64url(wallet.address) for wallet in owned.values()]
        yield Uploading(network, gateway, miner, first, second, stranger, owners, gateway.stats())
        gateway.control("faults", method="DELETE")


@pytest.mark.parametrize(
    ("call", "times"),
    [
        ("SqlStore.bundles.save_upload(", 1),
        ("SqlStore.bundles.save_announced(", 1),
        ("MinedStorage.post(", 1),
        ("MinedStorage.seed(", 1),
        ("SqlStore.bundles.save_upload_state(", 2),
    ],
)
def test_a_worker_that_is_killed_pays_once(uploading: Uploading, call: str, times: int) -> None:
    """Before and after the header is saved, before and after it is posted, after the last chunk."""
    killed: list[str] = []

    def kill() -> bool:
        killed.append(call)
        return True

    uploading.at(call, kill, times=times)
    uploading.require_paid_once()
    assert killed


def test_a_worker_that_is_killed_between_two_chunks_pays_once(uploading: Uploading) -> None:
    for i in range(70):
        uploading.network.world.publish(200 + i, json.dumps({"i": os.urandom(4_500).hex()}).encode())
    storage = uploading.first.storage
    assert isinstance(storage, MinedStorage)
    storage.dies_at_chunk = 1
    uploading.network.kill_at = lambda *_: False
    uploading.require_paid_once()
    assert storage.dies_at_chunk is None
    assert any(ran.name == "killed" for ran in uploading.network.log)


@pytest.mark.parametrize("call", ["MinedStorage.prepare(", "MinedStorage.post(", "MinedStorage.seed("])
def test_a_gateway_that_stands_still_for_longer_than_a_stage_is_paid_once(uploading: Uploading, call: str) -> None:
    stood: list[str] = []

    def stand() -> None:
        stood.append(call)
        uploading.miner.is_stopped = True
        with uploading.gateway.stopped():
            uploading.let_pass(LONG_MS)
        uploading.miner.is_stopped = False

    uploading.at(call, stand)
    uploading.require_paid_once()
    assert stood


HTML = "<html>welcome</html>"


@pytest.mark.parametrize(
    ("kind", "path", "rule"),
    [
        (FaultKind.CUT_BEFORE, "/tx$", {}),
        (FaultKind.CUT_AFTER, "/tx$", {}),
        (FaultKind.SILENT, "/tx$", {}),
        (FaultKind.ANSWER, "/tx$", {"status": 429, "headers": {"retry-after": "0"}}),
        (FaultKind.ANSWER, "/tx$", {"status": 503, "body": HTML}),
        (FaultKind.ANSWER, "/tx$", {"status": 200, "body": HTML}),
        (FaultKind.FORGET, "/tx$", {}),
        (FaultKind.FORGET, "/chunk$", {}),
        (FaultKind.ANSWER, "/chunk$", {"status": 303}),
        (FaultKind.ANSWER, "/graphql", {"status": 200, "body": HTML}),
        (FaultKind.FORGED_ROWS, "/graphql", {}),
        (FaultKind.WRONG_BYTES, "/raw/", {}),
        (FaultKind.LYING_PRICE, "/price/", {"amount": 150}),
    ],
)
def test_whatever_a_gateway_does_it_is_paid_once(
    uploading: Uploading, kind: FaultKind, path: str, rule: dict[str, Any]
) -> None:
    """Two times each."""
    struck = uploading.before["faults"].get(kind, 0)
    uploading.gateway.fail(kind, path, times=2, **rule)
    uploading.require_paid_once()
    assert uploading.gateway.stats()["faults"][kind] > struck


def test_a_transaction_that_the_mempool_dropped_is_posted_again(uploading: Uploading) -> None:
    dropped: list[str] = []

    def drop() -> None:
        (own,) = uploading.first.store.bundles.load_uploads(0)
        dropped.append(encode_base64url(own.prepared.storage_id))
        uploading.gateway.control(f"drop/{dropped[0]}")

    uploading.at("SqlStore.bundles.save_upload_state(", drop, times=2)
    uploading.require_paid_once()
    assert dropped


@pytest.mark.parametrize("drop", ["", "/drop"])
def test_a_reorganisation_after_reading_back_costs_nothing(uploading: Uploading, drop: str) -> None:
    forked: list[str] = []

    def fork() -> None:
        forked.append(drop)
        uploading.gateway.control(f"fork/2{drop}")

    uploading.at("SqlStore.bundles.save_announced_state(", fork)
    uploading.require_paid_once()
    assert forked


def test_a_stranger_that_posts_the_same_file_with_our_tags_changes_nothing(uploading: Uploading) -> None:
    posted: list[PreparedUpload] = []

    def post() -> None:
        bundle = uploading.first.store.bundles.load_bundle(0)
        assert bundle is not None
        prepared = uploading.stranger.prepare(Path(bundle.path), tags_of(uploading.first.context, bundle))
        uploading.stranger.post(prepared)
        uploading.stranger.seed(prepared, Path(bundle.path))
        posted.append(prepared)

    uploading.at("MinedStorage.find_uploads(", post)
    uploading.require_paid_once()
    assert posted
