"""Nobody dodges a penalty or catches a reward by timing, no key does harm at once, and nobody's money is stuck."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_key
from tests.contract_network import BROKER_STAKE, CONFIG, RAISE_DELAY_S, ContractNetwork
from validator.devnet.contracts import UNLIMITED, WEI, create_address
from validator.net.chain.abi import interface
from validator.net.chain.jsonrpc import Request, Reverted
from validator.net.chain.values import parse_bytes
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import Digest

MANAGER = "NodeManager"
OWNER = a_key(1)
STAKER, OTHER = a_key(2000), a_key(5000)
"""The one has all of the first broker's stake; the other only what it is given here."""
LATE = a_key(5300)
"""A node that is not there from the beginning."""
DAY_S = 86_400
OTHER_DIGEST = Digest(b"\x0e" * 32)


def hexed(address: bytes) -> str:
    return "0x" + address.hex()


def give(network: ContractNetwork, key: SigningKey, amount: int) -> None:
    """Tokens that all managers may take."""
    network.chain.fund([key.address])
    network.chain.transact(OWNER, "Token", "mintTokens", hexed(key.address), amount)
    for name in (MANAGER, "StoreManager", "QueryManager"):
        network.chain.transact(key, "Token", "approve", hexed(network.chain.address_of(name)), UNLIMITED)


def amount(network: ContractNetwork, function: str, *arguments: Any, contract: str = MANAGER) -> int:
    return int(network.chain.call(contract, function, *arguments)[0])


def held_by(network: ContractNetwork, key: SigningKey) -> int:
    return amount(network, "balanceOf", hexed(key.address), contract="Token")


def rotate(network: ContractNetwork, times: int = 1) -> None:
    """Reports that are the last of their epoch; the committee stays."""
    members = tuple(sorted(k.address for k in network.validators))
    for _ in range(times):
        network.submit(network.next_report({}, {}, {}, next_committee=members, next_config_digest=CONFIG))


def wait(network: ContractNetwork, seconds: int) -> None:
    network.chain.call_rpc("evm_increaseTime", seconds)
    network.chain.mine()


# --- timing ---------------------------------------------------------------------------------------


def test_what_leaves_between_the_block_and_the_report_pays_its_part_of_the_penalty(network: ContractNetwork) -> None:
    node = network.brokers[0].address
    give(network, OTHER, 10 * WEI)
    network.chain.transact(OTHER, MANAGER, "stakeAndDelegate", 10 * WEI, hexed(node))
    report = network.next_report({}, {}, {node: -11 * WEI, network.brokers[1].address: 11 * WEI})
    network.chain.transact(STAKER, MANAGER, "undelegate", BROKER_STAKE, hexed(node))
    network.submit(report)
    assert amount(network, "exitOf", hexed(STAKER.address), hexed(node)) == 90 * WEI
    assert amount(network, "delegatesOf", hexed(OTHER.address), hexed(node)) == 9 * WEI
    assert amount(network, "nodeStake", hexed(network.brokers[1].address)) == BROKER_STAKE + 11 * WEI


def test_a_penalty_reaches_a_node_that_everybody_has_left(network: ContractNetwork) -> None:
    node, winner = network.brokers[0].address, network.brokers[1].address
    network.chain.transact(STAKER, MANAGER, "undelegate", BROKER_STAKE, hexed(node))
    network.submit(network.next_report({}, {}, {node: -10 * WEI, winner: 10 * WEI}))
    assert amount(network, "nodeStake", hexed(winner)) == BROKER_STAKE + 10 * WEI
    rotate(network, 2)
    network.chain.transact(STAKER, MANAGER, "withdraw", 90 * WEI)
    assert held_by(network, STAKER) == 90 * WEI


def test_who_delegates_just_before_a_report_gets_nothing_of_its_rewards_and_its_part_of_the_next(
    network: ContractNetwork,
) -> None:
    node = network.brokers[0].address
    rotate(network)
    give(network, OTHER, 9_900 * WEI)
    network.chain.transact(OTHER, MANAGER, "stakeAndDelegate", 9_900 * WEI, hexed(node))
    assert amount(network, "nodeStake", hexed(node)) == 10_000 * WEI
    assert amount(network, "nodeEarning", hexed(node)) == BROKER_STAKE
    network.submit(network.next_report({network.streams[0]: 50 * WEI}, {}, {node: 50 * WEI}))
    assert amount(network, "delegatesOf", hexed(STAKER.address), hexed(node)) == 150 * WEI
    assert amount(network, "delegatesOf", hexed(OTHER.address), hexed(node)) == 9_900 * WEI
    network.submit(network.next_report({network.streams[0]: 201 * WEI}, {}, {node: 201 * WEI}))
    earned = amount(network, "delegatesOf", hexed(OTHER.address), hexed(node)) - 9_900 * WEI
    assert 197 * WEI < earned <= 198 * WEI


def test_a_node_that_has_just_joined_is_paid_for_what_it_served_and_nobody_else_is(network: ContractNetwork) -> None:
    rotate(network)
    node = LATE.address
    give(network, STAKER, 100 * WEI)
    give(network, OTHER, 9_900 * WEI)
    network.chain.fund([node])
    network.chain.transact(LATE, MANAGER, "upsertNode", "{}")
    network.chain.transact(STAKER, MANAGER, "stakeAndDelegate", 100 * WEI, hexed(node))
    network.chain.transact(OTHER, MANAGER, "stakeAndDelegate", 9_900 * WEI, hexed(node))
    receipt = network.submit(network.next_report({network.streams[0]: 50 * WEI}, {}, {node: 50 * WEI}))
    assert len(receipt["logs"]) == 1  # ReportAccepted: nothing came short
    assert amount(network, "nodeStake", hexed(node)) == 10_050 * WEI
    parts = {STAKER: 100 * WEI, OTHER: 9_900 * WEI, LATE: 50 * WEI}
    for who, part in parts.items():
        assert amount(network, "delegatesOf", hexed(who.address), hexed(node)) == part

    network.submit(network.next_report({network.streams[0]: 201 * WEI}, {}, {node: 201 * WEI}))
    for who, part in parts.items():
        right = part + 201 * WEI * part // (10_050 * WEI)
        assert abs(amount(network, "delegatesOf", hexed(who.address), hexed(node)) - right) <= 1


def test_what_a_node_earns_while_it_joins_comes_to_what_it_had_before(network: ContractNetwork) -> None:
    """Its own delegation has become shares, a penalty has used them up, and others have joined since."""
    rotate(network)
    node = LATE.address
    network.chain.fund([node])
    give(network, LATE, 100 * WEI)
    network.chain.transact(LATE, MANAGER, "join", 100 * WEI, "{}")
    winner = network.brokers[0].address
    network.submit(network.next_report({}, {}, {node: -100 * WEI, winner: 100 * WEI}))
    assert amount(network, "nodeStake", hexed(node)) == 0
    give(network, OTHER, 10 * WEI)
    network.chain.transact(OTHER, MANAGER, "stakeAndDelegate", 10 * WEI, hexed(node))
    network.submit(network.next_report({network.streams[0]: 5 * WEI}, {}, {node: 5 * WEI}))
    assert amount(network, "delegatesOf", hexed(node), hexed(node)) == 5 * WEI
    assert amount(network, "delegatesOf", hexed(OTHER.address), hexed(node)) == 10 * WEI
    network.chain.transact(LATE, MANAGER, "undelegate", 5 * WEI, hexed(node))
    assert amount(network, "exitOf", hexed(node), hexed(node)) == 5 * WEI


def test_a_line_for_a_node_without_stake_goes_to_the_treasury(network: ContractNetwork) -> None:
    node = network.brokers[0].address
    network.chain.transact(STAKER, MANAGER, "undelegate", BROKER_STAKE, hexed(node))
    receipt = network.submit(network.next_report({network.streams[0]: 5 * WEI}, {}, {node: 5 * WEI}))
    assert len(receipt["logs"]) == 2  # NodeLineShort, ReportAccepted
    assert amount(network, "treasurySupply") == 5 * WEI
    assert amount(network, "nodeStake", hexed(node)) == 0


def test_who_delegates_and_leaves_around_a_report_has_earned_nothing_and_waits_like_all(
    network: ContractNetwork,
) -> None:
    node = network.brokers[0].address
    rotate(network)
    give(network, OTHER, 9_900 * WEI)
    network.chain.transact(OTHER, MANAGER, "stakeAndDelegate", 9_900 * WEI, hexed(node))
    report = network.next_report({network.streams[0]: 50 * WEI}, {}, {node: 50 * WEI})
    network.chain.transact(OTHER, MANAGER, "undelegate", 9_900 * WEI, hexed(node))
    network.submit(report)
    assert amount(network, "exitOf", hexed(OTHER.address), hexed(node)) == 9_900 * WEI
    assert amount(network, "nodeStake", hexed(node)) == 150 * WEI
    assert network.refusal_of(MANAGER, "withdraw", 1, sender=OTHER) == "InsufficientBalance(0, 1)"


def test_what_is_taken_out_is_worth_the_shares_that_are_burnt_for_it_however_dear_they_are(
    network: ContractNetwork,
) -> None:
    node = network.brokers[0].address
    network.chain.transact(STAKER, MANAGER, "undelegate", BROKER_STAKE, hexed(node))
    give(network, OTHER, 1)
    network.chain.transact(OTHER, MANAGER, "stakeAndDelegate", 1, hexed(node))
    network.submit(network.next_report({network.streams[0]: 100 * WEI}, {}, {node: 100 * WEI}))
    give(network, STAKER, 1_000 * WEI)
    network.chain.transact(STAKER, MANAGER, "stakeAndDelegate", 1_000 * WEI, hexed(node))
    network.submit(network.next_report({}, {}, {}))
    network.submit(network.next_report({network.streams[0]: 7}, {}, {node: 7}))
    before = amount(network, "delegatesOf", hexed(STAKER.address), hexed(node))
    waiting = amount(network, "exitOf", hexed(STAKER.address), hexed(node))
    network.chain.transact(STAKER, MANAGER, "undelegate", 501 * WEI, hexed(node))
    kept = amount(network, "delegatesOf", hexed(STAKER.address), hexed(node))
    taken = amount(network, "exitOf", hexed(STAKER.address), hexed(node)) - waiting
    assert before - 3 <= kept + taken <= before
    assert taken >= 501 * WEI - 1


# --- the owner and the guardian -------------------------------------------------------------------


def members_of(network: ContractNetwork) -> list[str]:
    return [hexed(key.address) for key in sorted(network.validators, key=lambda k: k.address)]


def test_the_config_count_rises_only_as_announced_and_not_before_its_time(network: ContractNetwork) -> None:
    chain, members = network.chain, members_of(network)
    asked = ("ReportManager", "raiseConfigCount", members, OTHER_DIGEST)
    assert network.refusal_of(*asked, sender=OWNER) == "NotAnnounced"
    receipt = chain.transact(OWNER, "ReportManager", "announceConfigCount", members, OTHER_DIGEST)
    assert receipt["logs"], "everybody can see it"
    assert network.refusal_of(*asked, sender=OWNER).startswith("TooEarly")
    wait(network, RAISE_DELAY_S)
    assert network.refusal_of(*asked[:2], members[:1], OTHER_DIGEST, sender=OWNER) == "NotAnnounced"
    assert network.refusal_of(*asked, sender=a_key(900)) == "NotOwner"
    chain.transact(OWNER, *asked)
    assert chain.call("ReportManager", "configCount") == (1,)
    assert network.refusal_of(*asked, sender=OWNER) == "NotAnnounced"


def test_an_announcement_can_be_taken_back(network: ContractNetwork) -> None:
    members = members_of(network)
    network.chain.transact(OWNER, "ReportManager", "announceConfigCount", members, OTHER_DIGEST)
    network.chain.transact(OWNER, "ReportManager", "withdrawAnnouncement")
    wait(network, RAISE_DELAY_S)
    refused = network.refusal_of("ReportManager", "raiseConfigCount", members, OTHER_DIGEST, sender=OWNER)
    assert refused == "NotAnnounced"


def test_what_was_signed_under_an_older_count_never_counts_again_though_its_digest_comes_back(
    network: ContractNetwork,
) -> None:
    old = network.next_report()
    signed = network.sign(old)
    members = [k.address for k in network.validators]
    network.chain.raise_config_count(members, OTHER_DIGEST)
    network.chain.raise_config_count(members, CONFIG)
    new = network.next_report()
    network.chain.mine()
    assert network.chain.call("ReportManager", "configDigest") == (CONFIG,)
    assert network.refusal(old, *signed) == "WrongConfigCount(2)"
    assert network.refusal(new) == ""


@pytest.mark.parametrize("what", ["Submissions", "Withdrawals"])
def test_a_pause_is_the_guardians_ends_by_itself_and_comes_again_only_after_a_rest(
    network: ContractNetwork, what: str
) -> None:
    chain, guardian = network.chain, a_key(6)
    chain.fund([guardian.address])
    chain.transact(OWNER, "ReportManager", "transferGuardian", hexed(guardian.address))
    chain.transact(guardian, "ReportManager", "acceptGuardian")
    assert network.refusal_of("ReportManager", f"pause{what}", sender=OWNER) == "NotGuardian"
    give(network, OTHER, WEI)
    chain.transact(OTHER, MANAGER, "stake", WEI)
    report = network.next_report()
    chain.mine()

    def refusals() -> tuple[str, str]:
        return network.refusal(report), network.refusal_of(MANAGER, "withdraw", WEI, sender=OTHER)

    chain.transact(guardian, "ReportManager", f"pause{what}")
    paused = ("SubmissionsPaused", "") if what == "Submissions" else ("", "WithdrawalsPaused")
    assert refusals() == paused
    assert network.refusal_of("ReportManager", f"pause{what}", sender=guardian).startswith("TooEarly")
    wait(network, 7 * DAY_S)
    assert refusals() == ("", "")
    assert network.refusal_of("ReportManager", f"pause{what}", sender=guardian).startswith("TooEarly")
    wait(network, 14 * DAY_S)
    chain.transact(guardian, "ReportManager", f"pause{what}")
    assert refusals() == paused
    chain.transact(guardian, "ReportManager", f"resume{what}")
    chain.mine()
    assert refusals() == ("", "")


def test_a_pause_of_withdrawals_stops_every_way_out(network: ContractNetwork) -> None:
    stream = network.streams[0]
    give(network, OTHER, 3 * WEI)
    network.chain.transact(OTHER, "StoreManager", "stake", stream, WEI)
    network.chain.transact(OTHER, "QueryManager", "stake", WEI)
    network.chain.transact(OTHER, "StoreManager", "unstake", stream, WEI)
    network.chain.transact(OTHER, "QueryManager", "unstake", WEI)
    rotate(network, 2)
    network.chain.transact(OWNER, "ReportManager", "pauseWithdrawals")
    assert network.refusal_of("StoreManager", "withdraw", stream, sender=OTHER) == "WithdrawalsPaused"
    assert network.refusal_of("QueryManager", "withdraw", sender=OTHER) == "WithdrawalsPaused"
    assert network.refusal_of(MANAGER, "treasuryWithdraw", 0, sender=OWNER) == "WithdrawalsPaused"
    wait(network, 7 * DAY_S)
    assert network.refusal_of("StoreManager", "withdraw", stream, sender=OTHER) == ""
    assert network.refusal_of("QueryManager", "withdraw", sender=OTHER) == ""


# --- waiting and leaving --------------------------------------------------------------------------


def test_a_raise_frees_nobodys_deposit(network: ContractNetwork) -> None:
    node, stake_key = hexed(network.validators[0].address), a_key(1000)
    network.chain.transact(stake_key, MANAGER, "undelegate", BROKER_STAKE, node)
    rotate(network)
    for digest in (OTHER_DIGEST, CONFIG):
        network.chain.raise_config_count([k.address for k in network.validators], digest)
    assert network.refusal_of(MANAGER, "withdraw", 1, sender=stake_key) == "InsufficientBalance(0, 1)"
    rotate(network)
    network.chain.transact(stake_key, MANAGER, "withdraw", BROKER_STAKE)


def test_where_no_report_comes_any_more_time_frees_everything(network: ContractNetwork) -> None:
    node, stream = hexed(network.brokers[0].address), network.streams[0]
    give(network, OTHER, 2 * WEI)
    network.chain.transact(OTHER, "StoreManager", "stake", stream, WEI)
    network.chain.transact(OTHER, "QueryManager", "stake", WEI)
    network.chain.transact(STAKER, MANAGER, "undelegate", BROKER_STAKE, node)
    network.chain.transact(OTHER, "StoreManager", "unstake", stream, WEI)
    network.chain.transact(OTHER, "QueryManager", "unstake", WEI)
    wait(network, 59 * DAY_S)
    assert network.refusal_of(MANAGER, "withdraw", 1, sender=STAKER) == "InsufficientBalance(0, 1)"
    assert network.refusal_of("StoreManager", "withdraw", stream, sender=OTHER).startswith("NotReady")
    assert network.refusal_of("QueryManager", "withdraw", sender=OTHER).startswith("NotReady")
    wait(network, DAY_S)
    network.chain.transact(STAKER, MANAGER, "withdraw", BROKER_STAKE)
    network.chain.transact(OTHER, "StoreManager", "withdraw", stream)
    network.chain.transact(OTHER, "QueryManager", "withdraw")
    assert (held_by(network, STAKER), held_by(network, OTHER)) == (BROKER_STAKE, 2 * WEI)


@pytest.mark.parametrize("way", ["leave", "removeNode"])
def test_a_strangers_unit_keeps_no_node_from_leaving(network: ContractNetwork, way: str) -> None:
    key, stranger = a_key(5001), a_key(5002)
    give(network, key, 5 * WEI)
    give(network, stranger, 1)
    network.chain.transact(key, MANAGER, "join", 5 * WEI, '{"http":"https://x.example"}')
    network.chain.transact(stranger, MANAGER, "stakeAndDelegate", 1, hexed(key.address))
    network.chain.transact(key, MANAGER, way)
    assert key.address not in network.chain.call(MANAGER, "nodeAddresses")[0]
    if way == "removeNode":
        network.chain.transact(key, MANAGER, "undelegate", 5 * WEI, hexed(key.address))
    network.chain.transact(stranger, MANAGER, "undelegate", 1, hexed(key.address))
    rotate(network, 2)
    network.chain.transact(key, MANAGER, "withdraw", 5 * WEI)
    network.chain.transact(stranger, MANAGER, "withdraw", 1)
    assert (held_by(network, key), held_by(network, stranger)) == (5 * WEI, 1)


def test_what_leaves_a_stream_buys_no_more_pays_meanwhile_and_is_paid_out_after_the_wait(
    network: ContractNetwork,
) -> None:
    stream, store = network.streams[0], "StoreManager"
    give(network, OTHER, 3_000 * WEI)
    network.chain.transact(OTHER, store, "stake", stream, 3_000 * WEI)
    network.chain.transact(OTHER, store, "unstake", stream, 3_000 * WEI)
    index = network.index_of(stream)
    assert network.chain.call(store, "storesOf", [stream]) == ((1_000 * WEI,), (3_000 * WEI,), (index,))
    assert network.refusal_of(store, "withdraw", stream, sender=OTHER).startswith("NotReady")
    assert network.refusal_of(store, "unstake", stream, 1, sender=OTHER) == "InsufficientBalance(0, 1)"
    network.submit(network.next_report({stream: 400 * WEI}, {}, {}))
    rotate(network, 2)
    network.chain.transact(OTHER, store, "withdraw", stream)
    assert held_by(network, OTHER) == 2_700 * WEI
    assert network.chain.call(store, "storesOf", [stream])[:2] == ((900 * WEI,), (0,))
    network.chain.transact(OTHER, store, "withdraw", stream)
    assert held_by(network, OTHER) == 2_700 * WEI


def test_what_leaves_a_consumer_pays_meanwhile_and_is_paid_out_after_the_wait(network: ContractNetwork) -> None:
    query = "QueryManager"
    give(network, OTHER, 100 * WEI)
    network.chain.transact(OTHER, query, "stake", 100 * WEI)
    network.chain.transact(OTHER, query, "unstake", 70 * WEI)
    assert amount(network, "balanceOf", hexed(OTHER.address), contract=query) == 30 * WEI
    assert network.chain.call(query, "balancesOf", [hexed(OTHER.address)])[0] == (100 * WEI,)
    network.submit(network.next_report({}, {OTHER.address: 50 * WEI}, {}))
    assert network.chain.call(query, "exitOf", hexed(OTHER.address))[0] == 50 * WEI
    rotate(network, 2)
    network.chain.transact(OTHER, query, "withdraw")
    assert held_by(network, OTHER) == 50 * WEI
    network.submit(network.next_report({}, {OTHER.address: 50 * WEI}, {}))
    assert amount(network, "totalSupply", contract=query) == sum(
        network.chain.call(query, "balancesOf", [hexed(c) for c in network.consumers])[0]
    )


# --- the token, and the wiring --------------------------------------------------------------------


def test_a_token_that_refuses_everything_keeps_no_report_from_being_settled(network: ContractNetwork) -> None:
    chain, token = network.chain, hexed(network.chain.address_of("Token"))
    node, stream = network.brokers[0].address, network.streams[0]
    code = chain.call_rpc("eth_getCode", token, "latest")
    chain.call_rpc("anvil_setCode", token, "0x5f5ffd")
    network.submit(network.next_report({stream: 5 * WEI}, {network.consumers[0]: 3 * WEI}, {node: 6 * WEI}))
    assert amount(network, "nodeStake", hexed(node)) == BROKER_STAKE + 6 * WEI
    chain.call_rpc("anvil_setCode", token, code)
    assert amount(network, "balanceOf", hexed(chain.address_of(MANAGER)), contract="Token") == 7 * BROKER_STAKE
    chain.transact(OWNER, MANAGER, "draw")
    assert (
        amount(network, "balanceOf", hexed(chain.address_of(MANAGER)), contract="Token") == 7 * BROKER_STAKE + 8 * WEI
    )
    chain.transact(OWNER, MANAGER, "treasuryWithdraw", 2 * WEI)


def test_what_was_captured_is_fetched_when_it_is_paid_out(network: ContractNetwork) -> None:
    node = hexed(network.brokers[0].address)
    network.submit(network.next_report({network.streams[0]: 900 * WEI}, {}, {network.brokers[0].address: 900 * WEI}))
    network.chain.transact(STAKER, MANAGER, "undelegate", 1_000 * WEI, node)
    rotate(network, 2)
    network.chain.transact(STAKER, MANAGER, "withdraw", 1_000 * WEI)
    assert held_by(network, STAKER) == 1_000 * WEI


@pytest.mark.parametrize(
    "wrong", ["nothing", "report manager", "store's node manager", "query's token", "node's store"]
)
def test_managers_that_do_not_name_each_other_and_one_token_are_not_wired(network: ContractNetwork, wrong: str) -> None:
    chain, contracts = network.chain, network.chain.deployment.contracts
    deployer = a_key(4_242)
    chain.fund([deployer.address])
    node, store, query, report = (hexed(create_address(deployer.address, n)) for n in range(4))
    token, registry, elsewhere = hexed(contracts.token), hexed(contracts.stream_registry), hexed(a_key(9).address)
    deployed: list[tuple[Any, ...]] = [
        ("NodeManager", token, WEI, report, elsewhere if wrong == "node's store" else store, query),
        ("StoreManager", token, registry, elsewhere if wrong == "store's node manager" else node, report),
        ("QueryManager", elsewhere if wrong == "query's token" else token, node, report),
    ]
    if wrong == "report manager":
        deployed[1] = ("StoreManager", token, registry, node, elsewhere)
    for name, *arguments in deployed:
        chain.deploy_as(deployer, name, *arguments)
    code = interface("ReportManager").deployment((node, store, query, hexed(OWNER.address), 1))
    call = {"from": hexed(deployer.address), "data": "0x" + code.hex(), "gas": hex(12_000_000)}
    answer = chain.rpc.agree([Request("eth_call", (call, "latest"), parse_bytes)])[0]
    refused = interface("ReportManager").explain_revert(answer.data) if isinstance(answer, Reverted) else ""
    assert refused == ("" if wrong == "nothing" else "NotWired")
