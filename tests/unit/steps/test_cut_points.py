"""Cut points: read once, kept, and read anew where the chain has replaced what they rest on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from tests.fakes.world import GENESIS_MS, some_network
from validator.ports.chain import Chain
from validator.ports.queue import NotYet
from validator.ports.store import Store
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Block, ChainState, Digest, InstanceId, InstanceKind, Node
from validator.protocol.parameters import Network
from validator.steps.cut_points import CONFIGS_FOR_MS, KEPT_STATES, CutPoints, bind_wallets

A, B, C = (Address(bytes([n]) * 20) for n in (1, 2, 3))


class Chained:
    """A chain with a block a second, and the store's rows of it; ``asked`` is what the chain was asked."""

    def __init__(self) -> None:
        self.at_ms = GENESIS_MS
        self.members: tuple[Address, ...] = (A, B)
        self.final_s = 1 << 60
        self.fork = 0
        self.asked: list[int] = []
        self.blocks: dict[int, Block] = {}
        self.states: dict[Digest, ChainState] = {}
        self.epoch_blocks: dict[int, Block] = {}

    def now_ms(self) -> int:
        return self.at_ms

    def block(self, at_s: int) -> Block:
        return Block(at_s, Digest(at_s.to_bytes(31, "big") + bytes([self.fork])), at_s)

    # --- the chain ---

    def fetch_block_at(self, at_s: int) -> Block | None:
        self.asked.append(at_s)
        return self.block(at_s) if at_s < self.final_s else None

    def fetch_state(self, block: Block) -> ChainState:
        self.asked.append(block.number)
        return ChainState(block, tuple(a_node(member) for member in self.members), (), "0x/system", {})

    # --- the store ---

    def load_block(self, at_s: int) -> Block | None:
        return self.blocks.get(at_s)

    def save_block(self, at_s: int, block: Block) -> None:
        self.blocks[at_s] = block

    def load_state(self, block_hash: Digest) -> ChainState | None:
        return self.states.get(block_hash)

    def save_state(self, state: ChainState) -> None:
        self.states[state.block.hash] = state

    def load_epoch_block(self, number: int) -> Block | None:
        return self.epoch_blocks.get(number)

    def load_bundle(self, number: int) -> None:
        return None


def a_node(member: Address, arweave: bytes | None = None) -> Node:
    return Node(member, 10**20, None, f"https://{member.hex()}", arweave)


@pytest.fixture
def chained() -> Chained:
    return Chained()


def cut_points(chained: Chained, network: Network | None = None) -> CutPoints:
    store = SimpleNamespace(chain=chained, bundles=chained)
    return CutPoints(network or some_network(), chained, cast(Store, store), cast(Chain, chained))


def test_a_block_and_its_state_are_asked_for_once(chained: Chained) -> None:
    cuts, parameters = cut_points(chained), some_network().sets[0]
    block = cuts.block_for(GENESIS_MS, parameters)
    assert block.timestamp_s == GENESIS_MS // 1000 - parameters.lag_s
    assert cuts.state_at(block) == cuts.state_at(cuts.block_for(GENESIS_MS, parameters))
    assert chained.asked == [block.number, block.number]
    assert cut_points(chained).state_at(block).block == block, "another process finds it in the database"
    assert len(chained.asked) == 2


def test_what_is_not_final_is_not_kept(chained: Chained) -> None:
    cuts, parameters = cut_points(chained), some_network().sets[0]
    chained.final_s = GENESIS_MS // 1000 - parameters.lag_s
    with pytest.raises(NotYet):
        cuts.block_for(GENESIS_MS, parameters)
    assert chained.blocks == {}
    chained.final_s += 1
    assert cuts.block_for(GENESIS_MS, parameters).timestamp_s == chained.final_s - 1


def test_the_newest_states_stay_in_memory_and_one_that_is_replaced_does_not(chained: Chained) -> None:
    cuts = cut_points(chained)
    blocks = [chained.block(number) for number in range(KEPT_STATES + 1)]
    for block in blocks:
        cuts.state_at(block)
    chained.states.clear()
    chained.asked.clear()
    cuts.state_at(blocks[1])
    assert chained.asked == []
    cuts.forget_state(blocks[1])
    cuts.state_at(blocks[1])
    cuts.state_at(blocks[0])
    assert chained.asked == [1, 0]


def test_a_committee_is_read_once_and_again_when_its_block_is_replaced_before_anything_was_said(
    chained: Chained,
) -> None:
    cuts = cut_points(chained)
    first = cuts.epoch_config(0)
    assert (first.committee, first.urls[A]) == ((A, B), f"https://{A.hex()}")
    assert cuts.epoch_config(0) is first
    chained.fork, chained.members = 1, (A, C)
    chained.blocks.clear()
    assert cuts.epoch_config(0) is first, "it is looked at now and then"
    chained.at_ms += CONFIGS_FOR_MS
    second = cuts.epoch_config(0)
    assert second.committee == (A, C)
    assert second.digest != first.digest


def test_a_committee_under_which_something_was_said_stays_though_its_block_is_gone(chained: Chained) -> None:
    cuts = cut_points(chained)
    first = cuts.epoch_config(0)
    chained.epoch_blocks[0] = first.block
    chained.fork, chained.members = 1, (A, C)
    chained.blocks.clear()
    chained.at_ms += CONFIGS_FOR_MS
    assert cuts.epoch_config(0) is first


def test_where_nobody_offers_itself_the_members_before_stay(chained: Chained) -> None:
    cuts = cut_points(chained, some_network(last=False))
    before = cuts.epoch_config(0)
    chained.members = ()
    after = cuts.epoch_config(1)
    assert (after.committee, after.urls) == (before.committee, before.urls)
    assert after.digest != before.digest


def test_what_the_network_does_not_have_is_named(chained: Chained) -> None:
    cuts = cut_points(chained)
    with pytest.raises(ConfigError, match="no epoch 7"):
        cuts.epoch_config(7)
    with pytest.raises(ConfigError, match="no window starts"):
        cuts.instance_config(InstanceId(InstanceKind.WINDOW, GENESIS_MS + 1))
    with pytest.raises(NotYet, match="bundle 3"):
        cuts.instance_config(InstanceId(InstanceKind.LATE, 3))


def test_a_wallet_that_two_members_name_is_nobodys() -> None:
    nodes = [a_node(A, b"own"), a_node(B, b"both"), a_node(C, b"both")]
    assert bind_wallets(nodes, [A, B, C]) == {b"own": A}
    assert bind_wallets(nodes, [A, B]) == {b"own": A, b"both": B}, "who is no member names nothing"
