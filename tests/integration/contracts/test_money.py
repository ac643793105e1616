"""Whatever happens, every token here belongs to somebody, and a report never pays out more than it took in."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.builders import a_key
from tests.contract_network import BROKER_STAKE, CONFIG, ContractNetwork
from validator.devnet.contracts import WEI
from validator.protocol.errors import RemoteFault
from validator.protocol.model import Address, Digest

STAKERS = [a_key(2000), a_key(2001), a_key(5000), a_key(5001)]


def hexed(address: bytes) -> str:
    return "0x" + address.hex()


class Books:
    """All claims on chain, read in one place."""

    def __init__(self, network: ContractNetwork) -> None:
        self.network = network
        call = network.chain.call
        holders = (
            {k.address for k in STAKERS}
            | {a_key(1).address, a_key(2002).address}
            | {a_key(1000 + i).address for i in range(4)}
        )
        nodes = [k.address for k in network.brokers + network.validators]
        holders |= set(nodes)
        balances, leaving, _ = call("StoreManager", "storesOf", network.streams)
        self.stores = [b + e for b, e in zip(balances, leaving, strict=True)]
        self.consumers = call("QueryManager", "balancesOf", [hexed(c) for c in network.consumers])[0]
        self.stakes = {node: int(call("NodeManager", "nodeStake", hexed(node))[0]) for node in nodes}
        self.leaving = {node: int(call("NodeManager", "nodeLeaving", hexed(node))[0]) for node in nodes}
        self.balances = {h: int(call("NodeManager", "balanceOf", hexed(h))[0]) for h in holders}
        self.treasury = int(call("NodeManager", "treasurySupply")[0])
        self.held = {
            name: int(call("Token", "balanceOf", hexed(network.chain.address_of(name)))[0])
            for name in ("StoreManager", "QueryManager", "NodeManager")
        }

    @property
    def claims(self) -> int:
        nodes = sum(self.stakes.values()) + sum(self.leaving.values()) + sum(self.balances.values()) + self.treasury
        return int(sum(self.stores) + sum(self.consumers) + nodes)

    def check(self) -> None:
        call, ask_all = self.network.chain.call, self.network.ask_all
        assert sum(self.stores) == call("StoreManager", "totalSupply")[0] <= self.held["StoreManager"]
        assert sum(self.consumers) == call("QueryManager", "totalSupply")[0] <= self.held["QueryManager"]
        assert sum(self.held.values()) == self.claims
        of_nodes = [(node, holder) for node in self.stakes for holder in self.balances]
        of_streams = [(stream, holder) for stream in self.network.streams for holder in self.balances]
        claims = ask_all("NodeManager", "delegatesOf", [(hexed(h), hexed(n)) for n, h in of_nodes])
        exits = ask_all("NodeManager", "exitOf", [(hexed(h), hexed(n)) for n, h in of_nodes])
        holders = len(self.balances)
        for at, (node, stake) in enumerate(self.stakes.items()):
            claimed = sum(claims[at * holders : (at + 1) * holders])
            assert stake - 2 * holders <= claimed <= stake or (claimed == 0 and stake == 0)
            assert self.leaving[node] - holders <= sum(exits[at * holders : (at + 1) * holders]) <= self.leaving[node]
        claims = ask_all("StoreManager", "storeBalanceOf", [(hexed(h), s) for s, h in of_streams])
        exits = ask_all("StoreManager", "exitOf", [(hexed(h), s) for s, h in of_streams])
        for at, balance in enumerate(self.stores):
            claimed = sum(claims[at * holders : (at + 1) * holders]) + sum(exits[at * holders : (at + 1) * holders])
            assert claimed <= balance <= claimed + 2 * holders


def _settled_like(before: Books, after: Books, nodes: dict[Address, int]) -> None:
    """A report's effect by the rules of NodeManager.settle, computed again from the books before it."""
    captured = sum(before.stores) + sum(before.consumers) - sum(after.stores) - sum(after.consumers)
    all_of = {node: stake + before.leaving[node] for node, stake in before.stakes.items()}
    penalties = {n: min(-a, all_of.get(n, 0)) for n, a in nodes.items() if a < 0}
    available = captured + sum(penalties.values())
    wanted = sum(a for a in nodes.values() if a > 0)
    paid = 0
    for node in before.stakes:
        amount = nodes.get(node, 0)
        expected = all_of[node] - penalties.get(node, 0)
        if amount > 0 and before.stakes[node] > 0:
            reward = amount if wanted <= available else amount * available // wanted
            expected += reward
            paid += reward
        assert after.stakes[node] + after.leaving[node] == expected
        assert after.leaving[node] <= before.leaving[node]
    assert after.treasury - before.treasury == available - paid >= 0


def _random_report(network: ContractNetwork, books: Books, chance: Random) -> dict[Address, int]:
    """Submit a report that takes and gives anything within the contract's bounds, then check its effect."""
    streams = {
        s: chance.choice([0, 1, chance.randint(0, 2 * WEI), b, b + 1, b // 3])
        for s, b in zip(network.streams, books.stores, strict=True)
        if chance.random() < 0.7
    }
    if chance.random() < 0.2:
        streams["never stored"] = chance.randint(0, WEI)
    consumers = {c: chance.randint(0, 3 * WEI) for c in network.consumers if chance.random() < 0.6}
    everybody = [*books.stakes, a_key(7777).address]
    total = sum(streams.values()) + sum(consumers.values())
    nodes: dict[Address, int] = {}
    for node in chance.sample(everybody, k=chance.randint(0, len(everybody))):
        if chance.random() < 0.3:
            penalty = chance.choice([1, books.stakes.get(node, 5) // 2, books.stakes.get(node, 5) + 7])
            nodes[node] = -penalty
            total += penalty
    for node in [n for n in everybody if n not in nodes]:
        nodes[node] = chance.randint(0, total)
        total -= nodes[node]
    changes: dict[str, Any] = {}
    if chance.random() < 0.3:
        members = tuple(sorted(k.address for k in network.validators))
        changes = {"next_committee": members, "next_config_digest": CONFIG}
    network.submit(network.next_report(streams, consumers, nodes, **changes))
    return nodes


def _random_step(network: ContractNetwork, books: Books, chance: Random) -> None:
    who, chain = chance.choice(STAKERS), network.chain
    broker = hexed(chance.choice(network.brokers).address)
    free = books.balances[who.address]
    match chance.randrange(7):
        case 0:
            chain.transact(who, "StoreManager", "stake", chance.choice(network.streams), chance.randint(1, WEI))
        case 1:
            chain.transact(
                who, "QueryManager", "stakeFor", hexed(chance.choice(network.consumers)), chance.randint(1, WEI)
            )
        case 2:
            try:
                chain.transact(who, "NodeManager", "stakeAndDelegate", chance.randint(1, 9 * WEI), broker)
            except RemoteFault as error:
                assert error.revert == "AmountTooSmall"
                chain.transact(who, "NodeManager", "stake", 5)
        case 3 | 4:
            own = chain.call("NodeManager", "delegatesOf", hexed(who.address), broker)[0]
            if own:
                chain.transact(who, "NodeManager", "undelegate", chance.choice([own, own, max(own // 3, 1)]), broker)
        case 5:
            chain.transact(who, "NodeManager", "withdraw", chance.choice([0, free, free // 2]))
        case _:
            chain.transact(a_key(1), "NodeManager", "treasuryWithdraw", books.treasury // 2)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_held_are_the_sum_of_all_claims_after_every_step(network: ContractNetwork, seed: int) -> None:
    chance = Random(seed)
    chain = network.chain
    chain.fund([k.address for k in STAKERS])
    for key in STAKERS:
        chain.transact(a_key(1), "Token", "mintTokens", hexed(key.address), 10**6 * WEI)
        for name in ("StoreManager", "QueryManager", "NodeManager"):
            chain.transact(key, "Token", "approve", hexed(chain.address_of(name)), 10**6 * WEI)
    before = Books(network)
    for _ in range(30):
        if chance.random() < 0.4:
            nodes = _random_report(network, before, chance)
            after = Books(network)
            _settled_like(before, after, nodes)
        else:
            _random_step(network, before, chance)
            after = Books(network)
        after.check()
        before = after
    assert network.number > 5


def test_an_empty_store_cuts_its_line_and_the_treasury_before_the_rewards(network: ContractNetwork) -> None:
    first, second, third = network.streams
    broker = network.brokers[0].address
    streams = {first: 2_000 * WEI, second: WEI}  # the first store holds 1000
    receipt = network.submit(network.next_report(streams, {}, {broker: 900 * WEI}))
    books = Books(network)
    assert list(books.stores) == [0, 999 * WEI, 1_000 * WEI]
    assert books.stakes[broker] == BROKER_STAKE + 900 * WEI
    assert books.treasury == 101 * WEI
    assert len(receipt["logs"]) == 2  # CaptureShort, ReportAccepted; the token is asked for nothing
    assert network.chain.call("StoreManager", "exists", first)[0] is False
    network.submit(network.next_report({first: WEI, third: WEI}, {}, {broker: 2 * WEI}))
    books = Books(network)
    assert books.stakes[broker] == BROKER_STAKE + 901 * WEI
    assert books.treasury == 101 * WEI


def test_a_store_that_was_used_up_starts_again_without_old_claims(network: ContractNetwork) -> None:
    stream = network.streams[0]
    owner, late = a_key(1), a_key(5000)
    network.submit(network.next_report({stream: 1_000 * WEI}, {}, {}))
    network.chain.fund([late.address])
    network.chain.transact(owner, "Token", "mintTokens", hexed(late.address), WEI)
    store = hexed(network.chain.address_of("StoreManager"))
    network.chain.transact(late, "Token", "approve", store, WEI)
    network.chain.transact(late, "StoreManager", "stake", stream, WEI)
    assert network.chain.call("StoreManager", "storeBalanceOf", hexed(owner.address), stream)[0] == 0
    assert network.chain.call("StoreManager", "storeBalanceOf", hexed(late.address), stream)[0] == WEI


def test_every_stakeholder_pays_its_share_of_a_capture(network: ContractNetwork) -> None:
    stream, other = network.streams[0], a_key(5000)
    network.chain.fund([other.address])
    network.chain.transact(a_key(1), "Token", "mintTokens", hexed(other.address), 3_000 * WEI)
    network.chain.transact(other, "Token", "approve", hexed(network.chain.address_of("StoreManager")), 3_000 * WEI)
    network.chain.transact(other, "StoreManager", "stake", stream, 3_000 * WEI)
    network.submit(network.next_report({stream: 400 * WEI}, {}, {}))
    shares = [
        network.chain.call("StoreManager", "storeBalanceOf", hexed(k.address), stream)[0] for k in (a_key(1), other)
    ]
    assert shares == [900 * WEI, 2_700 * WEI]


def test_a_reward_for_an_address_that_never_joined_goes_to_the_treasury(network: ContractNetwork) -> None:
    stranger = a_key(7777).address
    network.submit(network.next_report(nodes={stranger: WEI}))
    assert network.chain.call("NodeManager", "nodeStake", hexed(stranger))[0] == 0
    assert network.chain.call("NodeManager", "isStaked", hexed(stranger))[0] is False
    assert network.chain.call("NodeManager", "treasurySupply")[0] == 4 * WEI


def test_delegates_share_rewards_and_penalties(network: ContractNetwork) -> None:
    node, other = network.brokers[0].address, a_key(5000)
    network.chain.fund([other.address])
    network.chain.transact(a_key(1), "Token", "mintTokens", hexed(other.address), 300 * WEI)
    network.chain.transact(other, "Token", "approve", hexed(network.chain.address_of("NodeManager")), 300 * WEI)
    network.chain.transact(other, "NodeManager", "stakeAndDelegate", 300 * WEI, hexed(node))
    stake_account = a_key(2000).address

    def shares() -> list[int]:
        return [
            network.chain.call("NodeManager", "delegatesOf", hexed(d), hexed(node))[0]
            for d in (stake_account, other.address)
        ]

    assert shares() == [100 * WEI, 300 * WEI]
    network.submit(network.next_report({network.streams[0]: 40 * WEI}, {}, {node: 40 * WEI}))
    assert shares() == [110 * WEI, 330 * WEI]
    network.submit(network.next_report({}, {}, {node: -220 * WEI}))
    assert shares() == [55 * WEI, 165 * WEI]
    assert network.chain.call("NodeManager", "treasurySupply")[0] == 220 * WEI


def test_a_stake_that_penalties_used_up_leaves_nothing_and_starts_again(network: ContractNetwork) -> None:
    node, owner = network.brokers[0].address, a_key(2000)
    network.submit(network.next_report({}, {}, {node: -BROKER_STAKE}))
    assert network.chain.call("NodeManager", "isStaked", hexed(node))[0] is False
    network.submit(network.next_report({network.streams[0]: WEI}, {}, {node: WEI}))
    assert network.chain.call("NodeManager", "nodeStake", hexed(node))[0] == 0
    network.chain.transact(a_key(1), "Token", "mintTokens", hexed(owner.address), WEI)
    network.chain.transact(owner, "NodeManager", "stakeAndDelegate", WEI, hexed(node))
    assert network.chain.call("NodeManager", "delegatesOf", hexed(owner.address), hexed(node))[0] == WEI
    assert network.chain.call("NodeManager", "isStaked", hexed(node))[0] is True


# --- membership and the lock ----------------------------------------------------------------------


def rotate(network: ContractNetwork) -> None:
    """A report that is the last of its epoch; the committee stays."""
    members = tuple(sorted(k.address for k in network.validators))
    network.submit(network.next_report(next_committee=members, next_config_digest=CONFIG))


def test_what_is_undelegated_counts_no_longer_and_leaves_after_two_rotations(network: ContractNetwork) -> None:
    stake_key, manager, node = a_key(1000), "NodeManager", hexed(network.validators[0].address)
    network.chain.transact(stake_key, manager, "undelegate", BROKER_STAKE, node)
    assert network.chain.call(manager, "nodeStake", node)[0] == 0
    assert network.chain.call(manager, "isStaked", node)[0] is False
    refused = f"InsufficientBalance(0, {BROKER_STAKE})"
    for _ in range(2):
        assert network.refusal_of(manager, "withdraw", BROKER_STAKE, sender=stake_key) == refused
        assert network.refusal_of(manager, "delegate", 1, node, sender=stake_key) == "InsufficientBalance(0, 1)"
        network.submit(network.next_report())
        assert network.refusal_of(manager, "withdraw", BROKER_STAKE, sender=stake_key) == refused
        rotate(network)
    network.chain.transact(stake_key, manager, "withdraw", BROKER_STAKE)
    assert network.chain.call("Token", "balanceOf", hexed(stake_key.address))[0] == BROKER_STAKE
    assert network.chain.call(manager, "exitOf", hexed(stake_key.address), node) == (0, 0, 0)


def test_undelegating_again_renews_the_wait_but_not_of_what_is_free(network: ContractNetwork) -> None:
    stake_key, manager, node = a_key(2000), "NodeManager", hexed(network.brokers[0].address)
    network.chain.transact(stake_key, manager, "undelegate", 10, node)
    rotate(network)
    network.chain.transact(stake_key, manager, "undelegate", 5, node)
    rotate(network)
    assert network.refusal_of(manager, "withdraw", 1, sender=stake_key) == "InsufficientBalance(0, 1)"
    rotate(network)
    network.chain.transact(stake_key, manager, "undelegate", 3, node)
    assert network.chain.call(manager, "balanceOf", hexed(stake_key.address))[0] == 15
    assert network.chain.call(manager, "exitOf", hexed(stake_key.address), node)[0] == 3


def test_a_member_of_the_committee_cannot_be_removed(network: ContractNetwork) -> None:
    member, stake_key, manager = network.validators[0], a_key(1000), "NodeManager"
    network.chain.transact(stake_key, manager, "undelegate", BROKER_STAKE, hexed(member.address))
    refused = f"IsMember({hexed(member.address)})"
    assert network.refusal_of(manager, "removeNode", sender=member) == refused
    assert network.refusal_of(manager, "leave", sender=member) == refused
    others = tuple(sorted(k.address for k in network.validators[1:]))
    network.submit(network.next_report(next_committee=others, next_config_digest=Digest(b"\x0d" * 32)))
    network.chain.transact(member, manager, "removeNode")
    assert member.address not in network.chain.call(manager, "nodeAddresses")[0]


def test_a_removed_nodes_delegations_stay_its_delegates_and_count_again_when_it_comes_back(
    network: ContractNetwork,
) -> None:
    node, stake_key, manager = network.brokers[0], a_key(2000), "NodeManager"
    assert network.refusal_of(manager, "removeNode", sender=a_key(900)) == "NotRegistered"
    network.chain.transact(node, manager, "removeNode")
    assert network.chain.call(manager, "isStaked", hexed(node.address))[0] is False
    assert network.refusal_of(manager, "delegate", 1, hexed(node.address), sender=stake_key) == "NotRegistered"
    network.submit(network.next_report({network.streams[0]: WEI}, {}, {node.address: WEI}))
    assert network.chain.call(manager, "isStaked", hexed(node.address))[0] is False
    network.chain.transact(node, manager, "upsertNode", "{}")
    assert network.chain.call(manager, "isStaked", hexed(node.address))[0] is True
    assert network.chain.call(manager, "delegatesOf", hexed(stake_key.address), hexed(node.address))[0] == 101 * WEI


def test_join_and_leave_return_what_was_brought(network: ContractNetwork) -> None:
    key = a_key(5001)
    network.chain.fund([key.address])
    network.chain.transact(a_key(1), "Token", "mintTokens", hexed(key.address), 5 * WEI)
    network.chain.transact(key, "Token", "approve", hexed(network.chain.address_of("NodeManager")), 5 * WEI)
    before = network.chain.call("NodeManager", "nodeAddresses")[0]
    network.chain.transact(key, "NodeManager", "join", 5 * WEI, '{"http":"http://127.0.0.1:9000"}')
    assert network.chain.call("NodeManager", "totalStaked")[0] == 8
    assert network.chain.call("NodeManager", "nodes", hexed(key.address))[5] == 5 * WEI
    network.chain.transact(key, "NodeManager", "leave")
    assert network.chain.call("NodeManager", "nodeAddresses")[0] == before
    rotate(network)
    rotate(network)
    network.chain.transact(key, "NodeManager", "withdraw", 5 * WEI)
    assert network.chain.call("Token", "balanceOf", hexed(key.address))[0] == 5 * WEI


@pytest.mark.parametrize(
    ("contract", "function", "arguments", "error"),
    [
        ("StoreManager", "capture", [b""], "OnlyReportManager"),
        ("QueryManager", "capture", [b""], "OnlyReportManager"),
        ("StoreManager", "hand", [1], "OnlyNodeManager"),
        ("QueryManager", "hand", [1], "OnlyNodeManager"),
        ("NodeManager", "settle", [b"", 5, 0], "OnlyReportManager"),
        ("NodeManager", "treasuryWithdraw", [0], "NotOwner"),
        ("NodeManager", "withdraw", [1], "InsufficientBalance(0, 1)"),
        ("NodeManager", "delegate", [0, "0x" + bytes(20).hex()], "ZeroAmount"),
        ("NodeManager", "delegate", [1, "0x" + bytes(20).hex()], "NotRegistered"),
        ("NodeManager", "undelegate", [1, "0x" + bytes(20).hex()], "InsufficientBalance(0, 1)"),
        ("NodeManager", "stake", [0], "ZeroAmount"),
        ("NodeManager", "upsertNode", ["x" * 4097], "MetadataTooLong"),
        ("StoreManager", "stake", ["no such stream", 1], "NoSuchStream"),
        ("StoreManager", "stake", ["x" * 257, 1], "BadStreamId"),
        ("StoreManager", "stake", ["x", 0], "ZeroAmount"),
        ("QueryManager", "stake", [0], "ZeroAmount"),
        ("Token", "mintTokens", ["0x" + bytes(19).hex() + "01", 1], "NotOwner"),
        ("StreamRegistry", "setPermissionsForUserIds", ["no such stream", [], []], "error_streamDoesNotExist"),
    ],
)
def test_a_stranger_is_refused_by_name(
    network: ContractNetwork, contract: str, function: str, arguments: list[object], error: str
) -> None:
    assert network.refusal_of(contract, function, *arguments, sender=a_key(900)) == error


def test_the_token_keeps_its_supply_below_two_to_the_96(network: ContractNetwork) -> None:
    supply = network.chain.call("Token", "totalSupply")[0]
    left = (1 << 96) - 1 - supply
    owner, to = a_key(1), hexed(a_key(2).address)
    assert network.refusal_of("Token", "mintTokens", to, left, sender=owner) == ""
    assert network.refusal_of("Token", "mintTokens", to, left + 1, sender=owner) == "SupplyTooLarge"


# --- gas ------------------------------------------------------------------------------------------


def test_a_report_stays_far_below_the_gas_limit(network: ContractNetwork) -> None:
    network.submit(network.next_report())
    receipt = network.submit(network.next_report())
    assert int(receipt["gasUsed"], 16) < 200_000
