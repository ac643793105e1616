"""Cut points: what is read of the chain, at the block that a time names (design: it comes from the chain, never from a
clock), and what follows from it: committees, config digests, scopes, wallets. Stored when first read, some in memory.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from validator.ports.chain import Chain
from validator.ports.clock import Clock
from validator.ports.queue import NotYet
from validator.ports.store import Store
from validator.ports.stored import StoredBundle
from validator.protocol.codec.config import config_digest, encode_config
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.model import (
    Address,
    Block,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Node,
    Window,
)
from validator.protocol.parameters import Config, Epoch, Network, ParameterSet
from validator.protocol.quorum import choose_committee
from validator.steps.kept import Kept

KEPT_STATES = 32
CONFIGS_FOR_MS = 10_000
"""How long configs of epochs are taken from memory before their blocks are looked at again."""


@dataclass(frozen=True, slots=True)
class EpochConfig:
    """An epoch with its committee and the digest that names both."""

    epoch: Epoch
    config: Config
    digest: Digest
    preimage: bytes
    urls: Mapping[Address, str]
    """Where members are reached: what they named when they were chosen."""
    block: Block
    """Where the committee was read."""

    @property
    def committee(self) -> tuple[Address, ...]:
        return self.config.committee

    @property
    def parameters(self) -> ParameterSet:
        return self.epoch.parameters


class CutPoints:
    """The chain as the network's rules read it; shared by all threads of a process."""

    def __init__(self, network: Network, clock: Clock, store: Store, chain: Chain) -> None:
        self._network = network
        self._clock = clock
        self._store = store
        self._chain = chain
        self._states: Kept[Digest, ChainState] = Kept(KEPT_STATES)
        self._lock = threading.Lock()
        self._configs: dict[int, EpochConfig] = {}
        self._configs_until_ms = 0

    # --- blocks and states ---

    def block_for(self, ms: int, parameters: ParameterSet) -> Block:
        """``B(t)``: highest block with timestamp <= t - lag, known once a later finalised block exists.

        Raises:
            NotYet: not finalised yet.
        """
        timestamp_s = ms // 1000 - parameters.lag_s
        block = self._store.chain.load_block(timestamp_s)
        if block is None:
            block = self._chain.fetch_block_at(timestamp_s)
            if block is None:
                raise NotYet(f"no finalised block after {timestamp_s}", timestamp_s=timestamp_s)
            self._store.chain.save_block(timestamp_s, block)
        return block

    def state_at(self, block: Block) -> ChainState:
        """Chain state at a block, stored when first read; the newest few stay in memory."""
        state = self._states.get(block.hash)
        if state is not None:
            return state
        state = self._store.chain.load_state(block.hash)
        if state is None:
            state = self._chain.fetch_state(block)
            self._store.chain.save_state(state)
        return self._states.put(block.hash, state)

    def forget_state(self, block: Block) -> None:
        """Of a block that the chain has replaced."""
        self._states.forget(block.hash)

    # --- epochs ---

    def epoch_config(self, number: int) -> EpochConfig:
        """Committee and config digest of an epoch, read at ``B``(epoch start). Where nobody offers itself there, the
        members of the epoch before stay, so no later committee is empty.

        Raises:
            NotYet: that block is not finalised yet.
            ConfigError: the network has no such epoch.
        """
        self._forget_replaced()
        with self._lock:
            known = self._configs.get(number)
        if known is not None:
            return known
        epoch = self._network.epoch(number)
        if epoch is None:
            raise ConfigError(f"the network has no epoch {number}", field="epoch")
        found = self._read_config(epoch)
        with self._lock:
            self._configs[number] = found
        return found

    def _read_config(self, epoch: Epoch) -> EpochConfig:
        block = self.epoch_block(epoch)
        state = self.state_at(block)
        committee = choose_committee(state.nodes, epoch.parameters.committee_limit)
        named = {node.address: node.validator_url for node in state.nodes}
        urls = {member: url for member in committee if (url := named[member]) is not None}
        if not committee and epoch.number:
            before = self.epoch_config(epoch.number - 1)
            committee, urls = before.committee, dict(before.urls)
        config = self._network.config_of(epoch, committee)
        return EpochConfig(epoch, config, config_digest(config), encode_config(config), urls, block)

    def epoch_block(self, epoch: Epoch) -> Block:
        """``B`` of an epoch: where its committee is read, or was, if the chain has replaced that block since."""
        kept = self._store.chain.load_epoch_block(epoch.number)
        return kept if kept is not None else self.block_for(epoch.start_ms, epoch.parameters)

    def _forget_replaced(self) -> None:
        """Configs whose block the chain has replaced before anything was said under them; looked at now and then."""
        now_ms = self._clock.now_ms()
        with self._lock:
            if now_ms < self._configs_until_ms <= now_ms + CONFIGS_FOR_MS:
                return
            self._configs_until_ms = now_ms + CONFIGS_FOR_MS
            configs = list(self._configs.items())
        for number, known in configs:
            try:
                block = self.epoch_block(known.epoch)
            except TransientError:
                continue
            if block.hash != known.block.hash:
                with self._lock:
                    self._configs.pop(number, None)

    def window_epoch(self, window: Window) -> Epoch:
        epoch = self._network.epoch_at(window.start_ms)
        if epoch is None:
            raise ConfigError(f"window {window.start_ms} lies in no epoch", field="window")
        return epoch

    def instance_config(self, instance: InstanceId) -> EpochConfig:
        """The epoch config that an instance belongs to. Raises NotYet if its bundle is not known yet."""
        if instance.kind is InstanceKind.WINDOW:
            window = self._network.window(instance.number)
            if window is None:
                raise ConfigError(f"no window starts at {instance.number}", field="window")
            return self.epoch_config(self.window_epoch(window).number)
        return self.epoch_config(require_bundle(self._store, instance.number).epoch)

    # --- scopes and wallets ---

    def wallets_of(self, bundle: StoredBundle) -> Mapping[bytes, Address]:
        """``bind_wallets`` of a bundle's committee at ``B`` of its last window. Raises NotYet."""
        config = self.epoch_config(bundle.epoch)
        state = self.state_at(self.block_for(bundle.last_ms, config.parameters))
        return bind_wallets(state.nodes, config.committee)


def require_bundle(store: Store, number: int) -> StoredBundle:
    bundle = store.bundles.load_bundle(number)
    if bundle is None:
        raise NotYet(f"bundle {number} is not known yet", number=number)
    return bundle


def bind_wallets(nodes: Iterable[Node], committee: Iterable[Address]) -> Mapping[bytes, Address]:
    """The member behind each Arweave wallet: the one that names it in its NodeManager metadata.

    A wallet that two members name is nobody's, and neither may upload. Were it the lower address's, say, a member could
    name another's wallet and earn by what that one pays for; ``check`` tells both, and either can name another.
    """
    members = frozenset(committee)
    named = [(node.arweave, node.address) for node in nodes if node.arweave is not None and node.address in members]
    times = Counter(wallet for wallet, _ in named)
    return {wallet: member for wallet, member in named if times[wallet] == 1}


def system_stream(network: Network) -> str:
    """The network's own stream: always in scope, pays nothing, published to by nodes with an http URL."""
    return f"0x{network.contracts.node_manager.hex()}/system"
