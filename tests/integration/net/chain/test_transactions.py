"""A saved transaction ends, whatever nodes, pools and other programs do: real steps before a real node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests import servers
from tests.builders import a_key
from tests.fakes.rpc_provider import Call, Provider, Said, refusal
from tests.fakes.small_network import Member, SmallNetwork, an_empty_database
from tests.fakes.world import CONTRACTS, some_network
from validator import wiring
from validator.net.chain.blocks import Blocks
from validator.net.chain.pricing import GWEI
from validator.net.chain.rpc import Rpc
from validator.net.chain.sender import ChainSender
from validator.net.chain.transaction import Transaction, parse_raw
from validator.protocol.parameters import format_network
from validator.settings import Settings

KEY = a_key(700)
OWN = "0x" + KEY.address.hex()


class Node:
    """Anvil without mining of its own, and what a test does to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False)

    def ask(self, method: str, *params: Any) -> Any:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._client.post("", json=call).json()
        assert "error" not in answer, answer
        return answer["result"]

    def nonce(self) -> int:
        return int(self.ask("eth_getTransactionCount", OWN, "latest"), 16)

    def send(self, nonce: int, tip: int = 90 * GWEI) -> str:
        """A transaction by another program with the same key."""
        raw = Transaction(31337, nonce, tip, 100 * GWEI, 21_000, KEY.address, 0, b"").sign(KEY)
        digest: str = self.ask("eth_sendRawTransaction", "0x" + raw.hex())
        return digest


@pytest.fixture
def node() -> Iterator[Node]:
    with servers.run_anvil("--no-mining") as url:
        node = Node(url)
        node.ask("anvil_setBalance", OWN, hex(10**20))
        yield node


class Sending:
    """One validator whose report is attested, and its outcomes."""

    def __init__(self, network: SmallNetwork) -> None:
        self.network = network
        self.member: Member = network.members[0]

    def look(self, seconds: int, until: Callable[[], bool] = lambda: False) -> Counter[str]:
        """Let so much time pass in the validator; how often each outcome was shown."""
        mark, start = len(self.network.log), self.network.clock.now_ms()
        self.network.run(lambda: until() or self.network.clock.now_ms() > start + 1000 * seconds, seconds + 100)
        return Counter(r.name for r in self.network.log[mark:] if r.task == "report.submit")

    def transactions(self) -> list[tuple[int, int]]:
        return [(n, int(f)) for n, f in self.member.rows("SELECT nonce, max_fee_per_gas FROM transactions ORDER BY id")]


@pytest.fixture
def sending(tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def start(*urls: str, **options: Any) -> Iterator[Sending]:
        (tmp_path / "empty").mkdir()
        (tmp_path / "net").mkdir()
        network = SmallNetwork(tmp_path / "net", an_empty_database(tmp_path / "empty"), 1)
        member = network.members[0]
        sender = ChainSender(urls, CONTRACTS, KEY, chain_id=31337, **options)
        member.sender = sender  # type: ignore[assignment]
        member.restart()
        network.world.publish(100, b'{"i":1}')
        network.run(lambda: any(r.state == "attested" for r in member.store.reports.load_reports(0)), 100)
        try:
            yield Sending(network)
        finally:
            network.close()
            sender.close()

    return start


def tip_of(raw: str) -> int:
    return parse_raw(bytes.fromhex(raw.removeprefix("0x"))).tip


WORDS = {
    "bor": "transaction gas price below minimum: gas tip cap 1500000000, minimum needed 25000000000",
    "geth": "transaction underpriced: gas tip cap 1500000000, minimum needed 25000000000",
    "erigon": "underpriced",
    "nethermind": "FeeTooLow, MaxFeePerGas too low. MaxFeePerGas: 1500000000, BaseFee: 1000000000",
    "besu": "Gas price below configured minimum gas price",
    "besu by name": "GAS_PRICE_TOO_LOW",
    "reth": "transaction underpriced",
    "words of its own": "computer says no",
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS.keys())
def test_a_transaction_below_the_nodes_floor_is_priced_anew_until_it_is_taken(
    node: Node, sending: Callable[..., Any], words: str
) -> None:
    needed = (25 if words != WORDS["words of its own"] else 4) * GWEI  # without a hint it takes its time

    def floor(call: Call) -> dict[str, Any] | None:
        if call["method"] == "eth_maxPriorityFeePerGas":
            return {"result": hex(1_500_000_000)}
        if call["method"] == "eth_sendRawTransaction" and tip_of(call["params"][0]) < needed:
            return refusal(-32000, words)
        return None

    with Provider(node.url) as provider, sending(provider.url) as s:
        provider.instead = floor
        outcomes = s.look(300, lambda: bool(node.ask("txpool_content")["pending"]))
        node.ask("evm_mine")
        assert outcomes["re-priced"] >= 4
        assert s.look(3)["submitted"] >= 2
        assert {nonce for nonce, _ in s.transactions()} == {0}
        assert len(s.transactions()) < 20


def test_polygons_floor_is_offered_from_the_start(node: Node) -> None:
    with Provider(node.url) as provider:
        provider.instead = lambda call: {"result": "0x1"} if call["method"] == "eth_maxPriorityFeePerGas" else None
        for chain_id, floor, tip in ((137, None, 30), (80002, None, 30), (137, 2, 2), (1, None, 1)):
            sender = ChainSender(
                [provider.url], CONTRACTS, KEY, chain_id=chain_id, min_tip_wei=None if floor is None else floor * GWEI
            )
            assert tip_of(sender.prepare_call(KEY.address, b"").raw.hex()) == tip * GWEI
            sender.close()


@pytest.mark.parametrize("cancelled", ["before it was sent", "while it was pending"])
def test_a_report_whose_nonce_went_to_another_program_is_sent_anew(
    node: Node, sending: Callable[..., Any], cancelled: str
) -> None:
    with Provider(node.url) as provider, sending(provider.url) as s:
        if cancelled == "before it was sent":
            provider.gate = lambda calls: Said(502) if calls[0]["method"] == "eth_sendRawTransaction" else None
        s.look(3)
        provider.gate = lambda _: None
        node.send(0)
        node.ask("evm_mine")
        outcomes = s.look(60, lambda: len(s.transactions()) > 1)
        assert outcomes["nonce taken"] >= 5
        assert [nonce for nonce, _ in s.transactions()] == [0, 1]
        node.ask("evm_mine")
        assert node.nonce() == 2
        assert s.look(5)["submitted"] >= 3
        assert len(s.transactions()) == 2


def test_one_that_the_pool_dropped_is_sent_again(node: Node, sending: Callable[..., Any]) -> None:
    with sending(node.url) as s:
        s.look(2)
        node.ask("anvil_dropAllTransactions")
        assert s.look(3)["sent again"] == 1
        node.ask("evm_mine")
        assert s.look(2)["submitted"]
        assert len(s.transactions()) == 1


def test_one_that_a_reorganisation_of_one_to_five_blocks_dropped_is_sent_again(
    node: Node, sending: Callable[..., Any]
) -> None:
    with sending(node.url) as s:
        s.look(2)
        for depth in range(1, 6):
            node.ask("evm_mine")
            assert s.look(2)["submitted"]
            node.ask("anvil_mine", hex(depth - 1))
            assert set(s.look(2)) == {"submitted"}
            node.ask("anvil_reorg", depth, [])
            assert node.nonce() == 0
            assert s.look(5)["sent again"] == 1
            assert len(node.ask("txpool_content")["pending"]) == 1
        node.ask("evm_mine")
        assert s.look(2)["submitted"]
        assert {nonce for nonce, _ in s.transactions()} == {0}


def test_where_the_new_branch_holds_another_programs_transaction_a_new_nonce_is_taken(
    node: Node, sending: Callable[..., Any]
) -> None:
    with sending(node.url) as s:
        s.look(2)
        node.ask("evm_mine")
        assert s.look(2)["submitted"]
        node.ask("anvil_reorg", 1, [])
        node.send(0, tip=99 * GWEI)
        node.ask("evm_mine")
        outcomes = s.look(60, lambda: len(s.transactions()) > 1)
        assert outcomes["nonce taken"]
        assert [nonce for nonce, _ in s.transactions()] == [0, 1]
        node.ask("evm_mine")
        assert s.look(3)["submitted"]


def test_a_base_fee_that_leaps_over_what_was_offered_is_followed_at_once(
    node: Node, sending: Callable[..., Any]
) -> None:
    with sending(node.url) as s:
        s.look(2)
        (_, offered), *_ = s.transactions()
        dear = 40 * offered
        node.ask("anvil_setNextBlockBaseFeePerGas", hex(dear))
        node.ask("evm_mine")
        assert node.nonce() == 0
        outcomes = s.look(60, lambda: len(s.transactions()) > 1)
        assert outcomes["replaced"] + outcomes["re-priced"] == 1, outcomes
        assert s.transactions()[1][1] > dear
        node.ask("evm_mine")
        assert node.nonce() == 1
        assert s.look(3)["submitted"]


def test_a_predecessor_that_is_mined_instead_of_its_replacement_is_enough(
    node: Node, sending: Callable[..., Any]
) -> None:
    with Provider(node.url) as provider, sending(provider.url) as s:
        s.look(2)
        swallowed = {"result": "0x" + "00" * 32}
        provider.instead = lambda call: swallowed if call["method"] == "eth_sendRawTransaction" else None
        s.look(70, lambda: len(s.transactions()) > 1)
        assert len({nonce for nonce, _ in s.transactions()}) == 1
        node.ask("evm_mine")
        outcomes = s.look(60)
        assert set(outcomes) == {"submitted"}
        assert len(s.transactions()) == 2


def test_a_stuck_one_is_replaced_for_more_again_and_again_up_to_the_cap(
    node: Node, sending: Callable[..., Any]
) -> None:
    with sending(node.url, max_fee_wei=8 * GWEI) as s:
        outcomes = s.look(400)
        fees = [fee for _, fee in s.transactions()]
        assert len(fees) > 3
        assert all(10 * later >= 11 * earlier for earlier, later in pairwise(fees))
        assert fees[-1] <= 8 * GWEI
        assert outcomes["fee cap"] > 5
        node.ask("evm_mine")
        assert s.look(20)["submitted"]


def test_while_the_chain_stands_still_no_more_is_offered(node: Node, sending: Callable[..., Any]) -> None:
    with sending(node.url) as s:
        s.look(2)
        still = s.network.world.head()
        s.network.world.head = lambda: still
        assert set(s.look(100)) == {"pending"}
        assert len(s.transactions()) == 1


def test_an_answer_that_was_lost_is_looked_up_first(node: Node, sending: Callable[..., Any]) -> None:
    """The node took it, and the line was cut before it said so."""
    with Provider(node.url) as provider, sending(provider.url) as s:

        def cut(call: Call, given: dict[str, Any]) -> dict[str, Any]:
            if call["method"] == "eth_sendRawTransaction":
                raise RuntimeError("the line is cut")
            return given

        provider.after = cut
        outcomes = s.look(6, lambda: len(node.ask("txpool_content")["pending"]) == 1)
        outcomes += s.look(6)
        assert outcomes["pending"]
        assert provider.methods().count("eth_sendRawTransaction") == 1
        node.ask("evm_mine")
        assert s.look(5)["submitted"]
        assert len(s.transactions()) == 1


def test_a_nonce_that_was_left_free_before_ours_is_filled(node: Node, sending: Callable[..., Any]) -> None:
    """Another program's transaction took the nonce before, and was dropped."""
    other = node.send(0)
    with sending(node.url) as s:
        s.look(2)
        assert [nonce for nonce, _ in s.transactions()] == [1]
        node.ask("anvil_dropTransaction", other)
        outcomes = s.look(120, lambda: len(s.transactions()) > 1)
        assert outcomes["nonce gap"]
        assert s.transactions()[1][0] == 0
        node.ask("evm_mine")
        assert s.look(3)["submitted"]


def test_one_that_cannot_be_paid_waits_for_funds(node: Node, sending: Callable[..., Any]) -> None:
    with sending(node.url) as s:
        node.ask("anvil_setBalance", OWN, hex(10**12))
        s.look(40, lambda: bool(s.transactions()))
        outcomes = s.look(40)
        assert outcomes["no funds"] in range(3, 6)
        node.ask("anvil_setBalance", OWN, hex(10**20))
        assert s.look(15)["sent again"] == 1
        assert len(s.transactions()) == 1


def test_the_operators_cap_in_pol_and_least_tip_hold_for_every_report(node: Node, tmp_path: Path) -> None:
    (tmp_path / "network.toml").write_text(format_network(some_network()))

    def offer(**changes: Any) -> Transaction:
        settings = Settings(
            network_file=tmp_path / "network.toml",
            rpc_urls=(node.url,),
            gateway_urls=(node.url,),
            gas_key=SecretStr(KEY.secret_hex()),
            **changes,
        )
        sender = wiring.Node(settings, wiring.NoTasks())._sender()
        assert isinstance(sender, ChainSender)
        offered = parse_raw(sender.prepare_call(KEY.address, b"\1" * 1000).raw)
        sender.close()
        return offered

    capped = offer(max_report_fee_pol=Decimal("0.00001"))
    assert capped.gas * capped.max_fee <= 10**13
    assert offer().gas * offer().max_fee > 10**13
    assert offer(min_tip_gwei=Decimal("7.5")).tip == 75 * GWEI // 10


STATE_SYNC: dict[str, Any] = {
    "from": "0x" + "00" * 20,
    "to": "0x" + "00" * 20,
    "effectiveGasPrice": None,
    "type": "0x7f",
    "milestone": [],
    "l1Fee": "0x",
}


def test_blocks_and_receipts_as_bor_answers_them_are_read(node: Node, sending: Callable[..., Any]) -> None:
    """Extra data of hundreds of bytes, members of its own, system transactions, and no base fee."""

    def bor(call: Call, given: dict[str, Any]) -> dict[str, Any]:
        result = given.get("result")
        if isinstance(result, dict) and call["method"] == "eth_getBlockByNumber":
            result |= {"extraData": "0x" + "d5" * 600, "author": OWN, "totalDifficulty": "0x" + "f" * 90}
            result["transactions"] = [*result["transactions"], {"type": "0x7f", "hash": "0x" + "77" * 32, **STATE_SYNC}]
            result.pop("baseFeePerGas")
        if isinstance(result, dict) and call["method"] == "eth_getTransactionReceipt":
            result |= {key: value for key, value in STATE_SYNC.items() if key != "to"}
        return given

    with Provider(node.url) as provider:
        provider.after = bor
        blocks = Blocks(Rpc([provider.url]), finality="1")
        node.ask("evm_mine")
        assert blocks.fetch_head().number == 1
        with sending(provider.url) as s:
            s.look(2)
            node.ask("evm_mine")
            assert s.look(3)["submitted"]
            price = int(node.ask("eth_gasPrice"), 16)
            assert s.transactions()[0][1] >= 2 * price
