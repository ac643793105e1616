"""Everything that must be on the chain and at the gateway before a network can begin: contracts, money, members."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import msgspec

from validator.devnet.contracts import WEI, DevChain, NodeSetup, StreamSetup, create_address
from validator.devnet.folder import write_private
from validator.devnet.plan import Options, broker_name, consumer_name, make_key, parameter_sets, validator_name
from validator.devnet.process import now_ms
from validator.devnet.signers import PublisherConfig, Scheme, make_signer
from validator.net.arweave.wallet import generate_wallet
from validator.protocol.codec.arweave import compute_address
from validator.protocol.codec.arweave_text import decode_base64url, encode_base64url
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address
from validator.protocol.parameters import ConsumerUrls, Contracts, Network, format_network

CHAIN_ID = 31337
NODE_STAKE = 1_000 * WEI
STORE_BALANCE = 1_000 * WEI
"""Pays for every window at the highest price many times over, so no entry is ever full."""
CONSUMER_BALANCE = WEI
WALLET_WINSTON = 10**15
OWNER_BYTES = 512
WALLET_WAIT_S = 120.0
STREAMS = (
    ("{owner}/devnet/temperature", 1, (Scheme.LEGACY, Scheme.P256)),
    ("{owner}/devnet/traffic", 3, (Scheme.LEGACY, Scheme.EVM, Scheme.ML_DSA_87)),
    ("übertragung.データ.eth/devnet", 2, (Scheme.P256_UNCOMPRESSED, Scheme.ERC_1271)),
)
"""Id, partitions, how each publisher signs. The registry wants ASCII in a path; a name in front of it may be of any
letters. All together sign in every way there is."""


# --- wallets --------------------------------------------------------------------------------------


class Wallets:
    """One RSA-4096 key per validator, made by threads while other things start; written with mode 600."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._addresses: dict[str, str] = {}
        self._threads = [Thread(target=self._make, args=(name,), daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def wait(self) -> dict[str, str]:
        """Arweave address per name. Raises TransientError if the keys are not there in two minutes."""
        end = time.monotonic() + WALLET_WAIT_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if len(self._addresses) != len(self._threads):
            raise TransientError("the Arweave wallets could not be made in time")
        return dict(self._addresses)

    def _make(self, name: str) -> None:
        jwk = generate_wallet()
        write_private(wallet_file(self._folder, name), json.dumps(jwk))
        owner = decode_base64url(jwk["n"], "n", max_bytes=OWNER_BYTES)
        self._addresses[name] = encode_base64url(compute_address(owner))


def wallet_file(keys: Path, name: str) -> Path:
    return keys / f"{name}.wallet.json"


def mint_winston(gateway_url: str, addresses: Sequence[str]) -> None:
    """Fund wallets at the development gateway. Raises RemoteFault."""
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        for address in addresses:
            answer = client.post(f"{gateway_url}/devnet/mint/{address}/{WALLET_WINSTON}")
            if answer.status_code != 200:
                raise RemoteFault(f"the gateway refuses to fund a wallet: status {answer.status_code}")


# --- the chain ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publisher:
    """How a publisher signs and its secret, as a key; with ERC-1271 also the key that creates its wallet."""

    scheme: Scheme
    key: SigningKey
    creator: SigningKey | None = None

    @property
    def wallet(self) -> Address | None:
        """Where the creator's first contract lies."""
        return None if self.creator is None else create_address(self.creator.address, 0)

    def config(self) -> dict[str, str | None]:
        """As the publishers' process reads it."""
        wallet = None if self.wallet is None else f"0x{self.wallet.hex()}"
        return {"key": self.key.secret_hex(), "scheme": self.scheme, "wallet": wallet}

    @property
    def user_id(self) -> bytes:
        """To whom the stream registry gives permission."""
        return make_signer(msgspec.convert(self.config(), PublisherConfig)).publisher_id


def make_publisher(seed: int, name: str, scheme: Scheme) -> Publisher:
    creator = make_key(seed, name, "wallet") if scheme is Scheme.ERC_1271 else None
    return Publisher(scheme, make_key(seed, name, "publish"), creator)


@dataclass(frozen=True, slots=True)
class Stream:
    """A stored stream: id, partitions, and who publishes on it."""

    id: str
    partitions: int
    publishers: tuple[Publisher, ...]


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """Whose keys, URLs and wallets (by name of their validator) go on the chain."""

    options: Options
    owner: SigningKey
    streams: tuple[Stream, ...]
    broker_urls: tuple[str, ...]
    validator_urls: tuple[str, ...]
    wallets: Mapping[str, str]

    def key(self, name: str, purpose: str) -> SigningKey:
        return make_key(self.options.seed, name, purpose)

    @property
    def validators(self) -> tuple[Address, ...]:
        return tuple(self.key(validator_name(i), "voting").address for i in range(self.options.validators))


def make_streams(options: Options, owner: SigningKey) -> tuple[Stream, ...]:
    """The streams of a run: below the owner's address and a name of the owner's, with publishers of their own."""
    return tuple(
        Stream(
            stream_id.format(owner=f"0x{owner.address.hex()}"),
            partitions,
            tuple(
                make_publisher(options.seed, f"publisher {stream_id} {number}", scheme)
                for number, scheme in enumerate(schemes)
            ),
        )
        for stream_id, partitions, schemes in STREAMS
    )


def fill_chain(chain: DevChain, plan: ChainPlan) -> None:
    """Register nodes, create and fund streams, stake query keys and consumers. One block per kind of thing."""
    options = plan.options
    nodes = []
    for index, url in enumerate(plan.validator_urls):
        name = validator_name(index)
        voting, stake, wallet = plan.key(name, "voting"), plan.key(name, "stake"), plan.wallets.get(name)
        nodes.append(NodeSetup(voting, stake, NODE_STAKE, validator_url=url, wallet=wallet))
    for index, url in enumerate(plan.broker_urls):
        name = broker_name(index)
        nodes.append(NodeSetup(plan.key(name, "node"), plan.key(name, "stake"), NODE_STAKE, http_url=url))
    chain.register_nodes(nodes)
    publishers = [publisher for stream in plan.streams for publisher in stream.publishers]
    chain.create_wallets([(p.creator, p.key.address) for p in publishers if p.creator is not None])
    chain.create_streams(
        [
            StreamSetup(s.id, STORE_BALANCE, s.partitions, tuple(publisher.user_id for publisher in s.publishers))
            for s in plan.streams
        ]
    )
    readers = {plan.key(validator_name(i), "query").address: CONSUMER_BALANCE for i in range(options.validators)}
    readers |= {plan.key(consumer_name(i), "consumer").address: CONSUMER_BALANCE for i in range(options.consumers)}
    chain.stake_consumers(readers)
    chain.fund([plan.key(validator_name(i), "gas").address for i in range(options.validators)])


def make_network(chain: DevChain, options: Options, genesis_ms: int, consumers: ConsumerUrls) -> Network:
    """The network that begins at ``genesis_ms``, and where those who only read it may ask."""
    deployment = chain.deployment
    return Network(
        name="devnet",
        chain_id=deployment.chain_id,
        deployment_block=deployment.block,
        deployment_parent_hash=deployment.parent_hash,
        contracts=deployment.contracts,
        genesis_ms=genesis_ms,
        sets=parameter_sets(options),
        consumers=consumers,
    )


def begin_network(chain: DevChain, network: Network, committee: Sequence[Address], path: Path) -> None:
    """Write network.toml, give the contract the first committee and its config digest, and let blocks come.

    The node was started with a clock in the past, so that set-up's blocks do not run ahead of time; here it jumps
    to now, and from now on a block comes every second.
    """
    path.write_text(format_network(network))
    epoch = network.epoch(0)
    assert epoch is not None
    chain.set_committee(committee, config_digest(network.config_of(epoch, tuple(sorted(committee)))))
    chain.call_rpc("evm_setNextBlockTimestamp", now_ms() // 1000)
    chain.mine()
    chain.start_mining(1)


def contract_names(contracts: Contracts) -> dict[str, str]:
    """Name to 0x address, for files."""
    names = ("token", "node_manager", "store_manager", "query_manager", "report_manager", "stream_registry")
    return {name: f"0x{getattr(contracts, name).hex()}" for name in names}
