"""A network that has stored three bundles: real contracts on anvil, a real development gateway, real signatures.

bundle 0    windows 0 and 1    1 700 000 000 s and 4 s later: both streams, two partitions of the first
bundle 1    windows 2 and 3    the first stream only; window 3 is empty
bundle 2    windows 4 and 5    the second stream; its late set holds a message of window 0
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import paths
from tests.builders import GENESIS_MS, a_key, a_record, a_stream_id
from tests.bundle_builder import MEMBERS, WINDOW_MS, a_manifest, rows_of
from tests.contract_network import ContractNetwork, a_report
from tests.gateway_process import GatewayProcess
from validator.devnet.contracts import DevChain
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec.arweave_text import encode_base64url, encode_storage_id
from validator.protocol.codec.bundle import bundle_tags
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.manifest import manifest_root
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import NIL, Digest, Manifest, MessageRef, Record, Root, StorageId
from validator.protocol.parameters import Config, ConsumerUrls, Network, ParameterSet, format_network

STREAMS = (a_stream_id(1, "a"), a_stream_id(1, "b"))
PUBLISHER = a_key(1)
AR = 10**12
REWARD_CAP = AR


def a_stored_record(
    at_ms: int,
    number: int,
    stream: int = 0,
    partition: int = 0,
    content: bytes = b"",
    prev: MessageRef | None = None,
) -> Record:
    return a_record(
        PUBLISHER,
        stream_id=STREAMS[stream],
        partition=partition,
        timestamp_ms=GENESIS_MS + at_ms,
        sequence_number=number,
        content=content or b'{"number":%d,"unit":"K"}' % number,
        prev=prev,
    )


NEXT_OF_31 = a_stored_record(8_100, 40, prev=MessageRef(GENESIS_MS + 4_500, 31))
"""Its chain goes on from one bundle to the next."""
WINDOWS: tuple[tuple[tuple[Record, ...], ...], ...] = (
    (
        (*(a_stored_record(100 * n, n, partition=n % 2) for n in range(10)), a_stored_record(700, 30, stream=1)),
        (a_stored_record(4_500, 31), a_stored_record(5_000, 32, stream=1)),
    ),
    ((NEXT_OF_31, *(a_stored_record(8_100 + n, 40 + n) for n in range(1, 5))), ()),
    ((a_stored_record(16_200, 50, stream=1),), (a_stored_record(20_300, 51, stream=1, content=b"=1+1"),)),
)
LATE: tuple[tuple[Record, ...], ...] = ((), (), (a_stored_record(650, 60),))
"""By bundle."""


@dataclass(slots=True)
class StoredNetwork:
    """What a reader is given (``network_file``), and what he cannot know: the bundles as they were made."""

    network: Network
    network_file: Path
    gateway: GatewayProcess
    contracts: ContractNetwork
    manifests: list[Manifest] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    storage_ids: list[StorageId] = field(default_factory=list)

    @property
    def roots(self) -> list[Root]:
        return [manifest_root(manifest) for manifest in self.manifests]

    def id_text(self, number: int) -> str:
        return encode_storage_id(self.storage_ids[number])


def store_network(folder: Path, rpc_url: str, gateway: GatewayProcess) -> StoredNetwork:
    """Deploy, write three bundles, upload them, and have their reports accepted."""
    chain = DevChain(rpc_url, a_key(1))
    deployment = chain.deploy()
    parameters = ParameterSet(
        first_epoch=0, epoch_windows=1_000, window_ms=WINDOW_MS, bundle_windows=2, margin_ms=60_000, finality="1"
    )
    network = Network(
        name="stored",
        chain_id=deployment.chain_id,
        deployment_block=deployment.block,
        deployment_parent_hash=deployment.parent_hash,
        contracts=deployment.contracts,
        genesis_ms=GENESIS_MS,
        sets=(parameters,),
        consumers=ConsumerUrls((rpc_url,), (gateway.url,)),
    )
    config = config_of(network)
    chain.set_committee([key.address for key in MEMBERS], config_digest(config))
    network_file = folder / "network.toml"
    network_file.write_text(format_network(network))
    stored = StoredNetwork(network, network_file, gateway, ContractNetwork(chain, list(MEMBERS), [], [], []))
    storage = funded_storage(gateway)
    try:
        for number, windows in enumerate(WINDOWS):
            manifest = a_manifest(
                windows,
                LATE[number],
                config=config,
                number=number,
                first_ms=GENESIS_MS + 2 * number * WINDOW_MS,
                previous_root=stored.roots[-1] if number else Root(NIL),
            )
            path = folder / f"bundle-{number}.parquet"
            write_bundle(path, manifest, rows_of(manifest, windows, LATE[number]))
            storage_id = upload(storage, gateway, network, path, manifest)
            accept(stored, manifest, storage_id)
            stored.manifests.append(manifest)
            stored.files.append(path)
            stored.storage_ids.append(storage_id)
    finally:
        storage.close()
    chain.mine(3)
    return stored


def config_of(network: Network, epoch: int = 0) -> Config:
    found = network.epoch(epoch)
    assert found is not None
    return Config(
        chain_id=network.chain_id,
        deployment_parent_hash=network.deployment_parent_hash,
        contracts=network.contracts,
        parameters=found.parameters,
        epoch=epoch,
        config_count=0,
        committee=tuple(key.address for key in MEMBERS),
    )


def funded_storage(gateway: GatewayProcess) -> ArweaveStorage:
    wallet = ArweaveWallet.from_jwk(json.loads((paths.VECTORS / "arweave.json").read_text())["keys"]["rsa"])
    gateway.control(f"mint/{encode_base64url(wallet.address)}/{AR}")
    return ArweaveStorage([gateway.url], wallet, reward_cap=REWARD_CAP, root_wait_s=0.01)


def upload(
    storage: ArweaveStorage,
    gateway: GatewayProcess,
    network: Network,
    path: Path,
    manifest: Manifest,
    tags: Sequence[tuple[str, str]] | None = None,
) -> StorageId:
    """Pay for a file, send it, mine it."""
    signing = SigningContext(network.chain_id, network.contracts.report_manager)
    end_ms = manifest.header.last_ms + WINDOW_MS
    prepared = storage.prepare(path, tags or bundle_tags(manifest.header, manifest_root(manifest), signing, end_ms))
    storage.post(prepared)
    gateway.mine()
    storage.seed(prepared, path)
    gateway.mine(3)
    return prepared.storage_id


def accept(stored: StoredNetwork, manifest: Manifest, storage_id: StorageId) -> None:
    """A report of the bundle that settles nothing, accepted by the contract."""
    block = stored.contracts.chain.call_rpc("eth_getBlockByNumber", "latest", False)
    stored.contracts.submit(
        a_report(
            config_digest=manifest.header.config_digest,
            number=manifest.header.number,
            height=int(block["number"], 16),
            block_hash=Digest(bytes.fromhex(block["hash"][2:])),
            first_ms=manifest.header.first_ms,
            last_ms=manifest.header.last_ms,
            previous_root=manifest.header.previous_root,
            bundle_root=manifest_root(manifest),
            storage_id=storage_id,
            streams=(),
            consumers=(),
            nodes=(),
            treasury=0,
        )
    )
