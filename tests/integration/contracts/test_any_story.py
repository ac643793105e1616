"""Whatever reports, stakes, exits, raises and pauses follow each other, on a real EVM, after every step:

- the tokens that the managers hold are what their books say;
- nobody has, here and taken out, more than it brought and earned; who joined since the last report earns nothing by it;
- the events alone say every balance, for whoever indexes them;
- the next honest report is accepted, unless the guardian has paused, which ends by itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.builders import a_key
from tests.contract_network import CONFIG, ContractNetwork
from tests.indexer import Indexer, hexed
from validator.devnet.contracts import UNLIMITED, WEI
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import RemoteFault
from validator.protocol.model import NIL, Digest, Root

OWNER = a_key(1)
PEOPLE = [a_key(5000 + i) for i in range(3)]
PURSE = 10**6 * WEI
MANAGERS = ("NodeManager", "StoreManager", "QueryManager")
DAY_S = 86_400
REFUSALS = ("InsufficientBalance", "AmountTooSmall", "NotReady", "WithdrawalsPaused", "TooEarly", "NotRegistered")
"""What a step may be refused for: there is nothing to take, or not yet."""

people = st.sampled_from(PEOPLE)
units = st.one_of(st.sampled_from([1, 2, 3, WEI]), st.integers(1, 300 * WEI))
parts = st.integers(0, 100)


class Story(RuleBasedStateMachine):
    network: ClassVar[ContractNetwork]

    def __init__(self) -> None:
        super().__init__()
        self.chain = self.network.chain
        self.ask_all = self.network.ask_all
        self.snapshot = self.chain.call_rpc("evm_snapshot")
        self.nodes = [key.address for key in self.network.brokers]
        self.joined: Counter[tuple[bytes, bytes]] = Counter()
        """What each has delegated since the last report, by person and node."""
        self.earned: Counter[bytes] = Counter()
        self.indexer = Indexer(self.chain)

    def teardown(self) -> None:
        self.chain.call_rpc("evm_revert", self.snapshot)
        self.chain.forget_nonces()
        self.network.number, self.network.last_root, self.network.last_ms = 0, Root(NIL), 1_000

    @initialize()
    def begin(self) -> None:
        self.report({}, {}, {})

    # --- what people do ---

    @rule(who=people, amount=units, node=st.integers(0, 2))
    def delegate(self, who: SigningKey, amount: int, node: int) -> None:
        if self.attempt(who, "NodeManager", "stakeAndDelegate", amount, hexed(self.nodes[node])):
            self.joined[who.address, self.nodes[node]] += amount

    @rule(who=people, part=parts, node=st.integers(0, 2))
    def undelegate(self, who: SigningKey, part: int, node: int) -> None:
        own = self.delegated(who, self.nodes[node])
        amount = -(-own * part // 100)
        if self.attempt(who, "NodeManager", "undelegate", amount, hexed(self.nodes[node])):
            key = (who.address, self.nodes[node])
            self.joined[key] = max(0, self.joined[key] - amount)

    @rule(who=people, stream=st.integers(0, 2), amount=units)
    def stake_store(self, who: SigningKey, stream: int, amount: int) -> None:
        self.attempt(who, "StoreManager", "stake", self.network.streams[stream], amount)

    @rule(who=people, stream=st.integers(0, 2), part=parts)
    def unstake_store(self, who: SigningKey, stream: int, part: int) -> None:
        own = self.ask("StoreManager", "storeBalanceOf", hexed(who.address), self.network.streams[stream])
        self.attempt(who, "StoreManager", "unstake", self.network.streams[stream], -(-own * part // 100))

    @rule(who=people, amount=units)
    def stake_queries(self, who: SigningKey, amount: int) -> None:
        self.attempt(who, "QueryManager", "stake", amount)

    @rule(who=people, part=parts)
    def unstake_queries(self, who: SigningKey, part: int) -> None:
        own = self.ask("QueryManager", "balanceOf", hexed(who.address))
        self.attempt(who, "QueryManager", "unstake", -(-own * part // 100))

    @rule(who=people, stream=st.integers(0, 2))
    def withdraw(self, who: SigningKey, stream: int) -> None:
        for node in self.nodes:
            self.attempt(who, "NodeManager", "release", hexed(node))
        free = self.ask("NodeManager", "balanceOf", hexed(who.address))
        self.attempt(who, "NodeManager", "withdraw", free)
        self.attempt(who, "StoreManager", "withdraw", self.network.streams[stream])
        self.attempt(who, "QueryManager", "withdraw")

    @rule(node=st.integers(0, 2))
    def come_or_go(self, node: int) -> None:
        key = self.network.brokers[node]
        if not self.attempt(key, "NodeManager", "removeNode"):
            self.attempt(key, "NodeManager", "upsertNode", "{}")

    # --- what the network does ---

    @precondition(lambda self: not self.is_paused())
    @rule(
        taken=st.tuples(parts, parts, parts),
        paid=parts,
        changes=st.tuples(*[st.integers(-120, 100)] * 3),
        last=st.booleans(),
    )
    def settle(self, taken: tuple[int, ...], paid: int, changes: tuple[int, ...], last: bool) -> None:
        """Captures by hundredths of what is there, penalties by hundredths of stakes, rewards of what is left."""
        balances, leaving, _ = self.chain.call("StoreManager", "storesOf", self.network.streams)
        streams = {
            stream: (balance + away) * part // 100
            for stream, balance, away, part in zip(self.network.streams, balances, leaving, taken, strict=True)
        }
        who = PEOPLE[0].address
        consumers = {who: self.chain.call("QueryManager", "balancesOf", [hexed(who)])[0][0] * paid // 100}
        stakes = {node: self.ask("NodeManager", "nodeStake", hexed(node)) for node in self.nodes}
        nodes = {n: stakes[n] * part // 100 for n, part in zip(self.nodes, changes, strict=True) if part < 0}
        left = sum(streams.values()) + sum(consumers.values()) - sum(nodes.values())
        for node, part in zip(self.nodes, changes, strict=True):
            if part > 0:
                nodes[node] = left * part // 300
        members = tuple(sorted(k.address for k in self.network.validators))
        rotation = {"next_committee": members, "next_config_digest": CONFIG} if last else {}
        self.report(streams, consumers, nodes, **rotation)

    def report(self, streams: Any, consumers: Any, nodes: Any, **changes: Any) -> None:
        """Submit it, and credit everybody with at most its part of the rewards."""
        pairs = [(p.address, n) for p in PEOPLE for n in self.nodes]
        keys = [(hexed(who), hexed(node)) for who, node in pairs]
        before = dict(zip(pairs, self.ask_all("NodeManager", "delegatesOf", keys), strict=True))
        earned = self.ask_all("NodeManager", "nodeEarning", [(hexed(n),) for n in self.nodes])
        earning = dict(zip(self.nodes, earned, strict=True))
        self.network.submit(self.network.next_report(streams, consumers, nodes, **changes))
        after = dict(zip(pairs, self.ask_all("NodeManager", "delegatesOf", keys), strict=True))
        for person in PEOPLE:
            for node in self.nodes:
                key = (person.address, node)
                part = before[key] - self.joined[key]
                reward = max(nodes.get(node, 0), 0)
                due = reward * part // earning[node] + 2 if part > 0 and earning[node] else 0
                gained = after[key] - before[key]
                assert gained <= due + 2, "gained more than its part of the stake that earns"
                self.earned[person.address] += max(0, gained)
        self.joined.clear()

    @rule(digest=st.binary(min_size=32, max_size=32).filter(lambda d: d not in (CONFIG, NIL)))
    def raise_and_return(self, digest: bytes) -> None:
        members = [k.address for k in self.network.validators]
        for each in (Digest(digest), CONFIG):
            self.chain.raise_config_count(members, each)

    @rule(what=st.sampled_from(["Submissions", "Withdrawals"]))
    def pause(self, what: str) -> None:
        self.attempt(OWNER, "ReportManager", f"pause{what}")

    @rule(days=st.sampled_from([1, 8, 30, 61]))
    def wait(self, days: int) -> None:
        self.chain.call_rpc("evm_increaseTime", days * DAY_S)
        self.chain.mine()

    # --- what holds ---

    @invariant()
    def tokens_are_what_the_books_say(self) -> None:
        held = sum(self.ask_all("Token", "balanceOf", [(hexed(self.chain.address_of(name)),) for name in MANAGERS]))
        stores, queries = self.ask("StoreManager", "totalSupply"), self.ask("QueryManager", "totalSupply")
        balances, leaving, _ = self.chain.call("StoreManager", "storesOf", self.network.streams)
        assert sum(balances) + sum(leaving) == stores
        everybody = [*self.nodes, *(k.address for k in self.network.validators)]
        keys = [(hexed(n),) for n in everybody]
        pools = sum(self.ask_all("NodeManager", "nodeStake", keys) + self.ask_all("NodeManager", "nodeLeaving", keys))
        free = sum(self.ask_all("NodeManager", "balanceOf", [(hexed(p.address),) for p in PEOPLE]))
        assert held == stores + queries + pools + free + self.ask("NodeManager", "treasurySupply")

    @invariant()
    def events_alone_say_every_balance(self) -> None:
        found = self.indexer
        found.follow()
        balances, leaving, _ = self.chain.call("StoreManager", "storesOf", self.network.streams)
        held = {s: b + away for s, b, away in zip(self.network.streams, balances, leaving, strict=True)}
        assert held == {stream: found.streams[stream] for stream in self.network.streams}
        consumers = [hexed(who) for who in (*self.network.consumers, *(p.address for p in PEOPLE))]
        paid = self.chain.call("QueryManager", "balancesOf", consumers)[0]
        assert list(paid) == [found.consumers[who] for who in consumers]
        nodes, accounts = [hexed(n) for n in self.nodes], [hexed(p.address) for p in PEOPLE]
        for view, who, expected in (
            ("nodeStake", nodes, found.stakes),
            ("nodeLeaving", nodes, found.leaving),
            ("balanceOf", accounts, found.accounts),
        ):
            assert self.ask_all("NodeManager", view, [(w,) for w in who]) == [expected[w] for w in who], view
        assert self.ask("NodeManager", "treasurySupply") == found.treasury

    @invariant()
    def nobody_has_more_than_it_brought_and_earned(self) -> None:
        people = [(hexed(p.address),) for p in PEOPLE]
        of_streams = [(*who, stream) for who in people for stream in self.network.streams]
        of_nodes = [(*who, hexed(node)) for who in people for node in self.nodes]
        in_stores = self.ask_all("StoreManager", "balanceOf", people)
        single = [
            self.ask_all("Token", "balanceOf", people),
            self.ask_all("NodeManager", "balanceOf", people),
            self.ask_all("QueryManager", "balanceOf", people),
            self.ask_all("QueryManager", "exitOf", people),
            in_stores,
        ]
        leaving = self.ask_all("StoreManager", "exitOf", of_streams)
        delegated = self.ask_all("NodeManager", "delegatesOf", of_nodes)
        undelegated = self.ask_all("NodeManager", "exitOf", of_nodes)
        own = self.ask_all("StoreManager", "storeBalanceOf", of_streams)
        for at, person in enumerate(PEOPLE):
            streams, nodes = (slice(at * n, (at + 1) * n) for n in (len(self.network.streams), len(self.nodes)))
            assert sum(own[streams]) == in_stores[at]
            has = sum(column[at] for column in single) + sum(leaving[streams])
            has += sum(delegated[nodes]) + sum(undelegated[nodes])
            # Each step may round a unit or two in somebody's favour, never more.
            assert has <= PURSE + self.earned[person.address] + 200

    @invariant()
    def the_next_honest_report_is_accepted(self) -> None:
        report = self.network.next_report(
            {self.network.streams[0]: 1}, {PEOPLE[0].address: 1}, {self.nodes[0]: 1, self.nodes[1]: -1}
        )
        self.chain.mine()
        assert self.network.refusal(report) == ("SubmissionsPaused" if self.is_paused() else "")

    # --- inside ---

    def is_paused(self) -> bool:
        now = int(self.chain.call_rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        return now < self.ask("ReportManager", "submissionsPausedUntil")

    def delegated(self, who: SigningKey, node: bytes) -> int:
        return self.ask("NodeManager", "delegatesOf", hexed(who.address), hexed(node))

    def ask(self, contract: str, function: str, *arguments: Any) -> int:
        return int(self.chain.call(contract, function, *arguments)[0])

    def attempt(self, key: SigningKey, contract: str, function: str, *arguments: Any) -> bool:
        """Whether the step could be done; a refusal has one of the names that it may have."""
        try:
            self.chain.transact(key, contract, function, *arguments)
        except RemoteFault as error:
            assert (error.revert or "").startswith((*REFUSALS, "ZeroAmount")), error
            return False
        return True


@pytest.fixture
def people_with_purses(network: ContractNetwork) -> ContractNetwork:
    network.chain.fund([k.address for k in (*PEOPLE, *network.brokers)])
    for person in PEOPLE:
        network.chain.transact(OWNER, "Token", "mintTokens", hexed(person.address), PURSE)
        for name in MANAGERS:
            network.chain.transact(person, "Token", "approve", hexed(network.chain.address_of(name)), UNLIMITED)
    return network


def test_money_is_safe_in_any_story(people_with_purses: ContractNetwork) -> None:
    Story.network = people_with_purses
    few = settings(
        max_examples=8,
        stateful_step_count=20,
        deadline=None,
        # Its twenty steps are short enough to read, and to shrink them takes many minutes of EVM time.
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(Story, settings=few)
