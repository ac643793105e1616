"""The token is sold for the network's own coin, as far as its owner offers it."""

from __future__ import annotations

import pytest

from tests.builders import a_key
from tests.contract_network import ContractNetwork
from tests.indexer import hexed
from validator.devnet.contracts import TOKEN_PRICE_WEI, WEI
from validator.net.chain.abi import explain_revert, interface
from validator.net.chain.jsonrpc import Request, Reverted
from validator.net.chain.values import parse_bytes

OWNER = a_key(1)
BUYER = a_key(5200)


@pytest.fixture
def market(network: ContractNetwork) -> ContractNetwork:
    """1 000 base units are for sale at 7 wei each."""
    network.chain.fund([BUYER.address])
    network.chain.transact(OWNER, "Token", "offer", 7, 1_000)
    return network


def buy(market: ContractNetwork, wei: int) -> str:
    """What the sale is refused for; "" if it takes place."""
    token, who = hexed(market.chain.address_of("Token")), hexed(BUYER.address)
    data = "0x" + interface("Token").function("mint").encode(()).hex()
    call = {"from": who, "to": token, "value": hex(wei), "data": data, "gas": hex(200_000)}
    answer = market.chain.rpc.agree([Request("eth_call", (call, "latest"), parse_bytes)])[0]
    if isinstance(answer, Reverted):
        return explain_revert(answer.data)
    market.chain.call_rpc("anvil_impersonateAccount", who)
    market.chain.call_rpc("eth_sendTransaction", call)
    market.chain.mine()
    return ""


def held(market: ContractNetwork) -> int:
    return int(market.chain.call("Token", "balanceOf", hexed(BUYER.address))[0])


def test_coins_buy_what_they_pay_for_at_the_price(market: ContractNetwork) -> None:
    supply = market.chain.call("Token", "totalSupply")[0]
    assert buy(market, 7 * 600 + 6) == ""
    assert held(market) == 600
    assert market.chain.call("Token", "totalSupply")[0] == supply + 600
    assert market.chain.call("Token", "offered") == (400,)
    assert market.chain.call("Token", "balance") == (7 * 600 + 6,)


def test_no_more_is_sold_than_is_offered(market: ContractNetwork) -> None:
    assert buy(market, 7 * 1_001).startswith("NotEnoughOffered(1000, 1001)")
    assert buy(market, 7 * 1_000) == ""
    assert buy(market, 7) == "NotEnoughOffered(0, 1)"
    assert held(market) == 1_000


def test_coins_for_less_than_one_unit_are_refused(market: ContractNetwork) -> None:
    assert buy(market, 6) == "AmountTooSmall(7)"


def test_nothing_is_sold_without_a_price(market: ContractNetwork) -> None:
    market.chain.transact(OWNER, "Token", "offer", 0, 1_000)
    assert buy(market, WEI) == "NotForSale"


def test_a_sale_cannot_lift_the_supply_above_its_limit(market: ContractNetwork) -> None:
    left = (1 << 96) - 1 - market.chain.call("Token", "totalSupply")[0]
    market.chain.transact(OWNER, "Token", "mintTokens", hexed(a_key(2).address), left - 5)
    assert buy(market, 7 * 6) == "SupplyTooLarge"
    assert buy(market, 7 * 5) == ""


def test_only_the_owner_withdraws_what_was_paid(market: ContractNetwork) -> None:
    assert buy(market, 7_000) == ""
    assert market.refusal_of("Token", "withdraw", 7_000, sender=BUYER) == "NotOwner"
    assert market.refusal_of("Token", "offer", 1, 1, sender=BUYER) == "NotOwner"
    assert market.refusal_of("Token", "withdraw", 7_001, sender=OWNER) == "InsufficientProceeds(7000, 7001)"
    before = int(market.chain.call_rpc("eth_getBalance", hexed(OWNER.address), "latest"), 16)
    receipt = market.chain.transact(OWNER, "Token", "withdraw", 7_000)
    spent = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    after = int(market.chain.call_rpc("eth_getBalance", hexed(OWNER.address), "latest"), 16)
    assert after == before - spent + 7_000
    assert market.chain.call("Token", "balance") == (0,)


def test_the_development_network_sells(network: ContractNetwork) -> None:
    assert network.chain.call("Token", "price") == (TOKEN_PRICE_WEI,)
    network.chain.fund([BUYER.address])
    assert buy(network, 10 * WEI) == ""
    assert held(network) == WEI


@pytest.mark.parametrize(
    ("contract", "arguments"), [("StoreManager", ["", 5]), ("QueryManager", [5]), ("NodeManager", [5])]
)
def test_a_missing_allowance_has_its_name_in_the_managers_own_abi(
    network: ContractNetwork, contract: str, arguments: list[object]
) -> None:
    if contract == "StoreManager":
        arguments[0] = network.streams[0]
    manager = network.chain.address_of(contract)
    assert network.refusal_of(contract, "stake", *arguments, sender=BUYER) == (
        f"InsufficientAllowance({hexed(manager)}, 0, 5)"
    )
    names = {error.name for error in interface(contract).errors.values()}
    assert {"InsufficientAllowance", "InsufficientBalance", "ZeroAddress"} <= names
