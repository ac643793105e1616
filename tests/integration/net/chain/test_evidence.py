"""An empty answer is not a complete one: nodes that lag, alone or behind a balancer, and logs with a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import servers
from tests.builders import a_key
from tests.contract_network import ContractNetwork
from tests.fakes.rpc_provider import Call, Provider, Said, refusal
from validator.devnet.contracts import WEI, StreamSetup
from validator.net.chain.reader import ChainReader
from validator.net.chain.store_index import MemoryIndex, StoreList
from validator.protocol.errors import TransientError

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with servers.run_anvil("--slots-in-an-epoch", "1") as url:
        yield url


@pytest.fixture(scope="module")
def network(node: str) -> Iterator[ContractNetwork]:
    network = ContractNetwork.create(node, streams=3)
    network.chain.mine(3)
    yield network
    network.chain.close()


def a_reader(network: ContractNetwork, *urls: str, index: MemoryIndex | None = None, **options: Any) -> ChainReader:
    deployment = network.chain.deployment
    return ChainReader(
        urls, deployment.contracts, deployment_block=deployment.block, chain_id=31337, index=index, **options
    )


def create_stream(network: ContractNetwork, name: str) -> str:
    stream = f"0x{a_key(301).address.hex()}/{name}"
    network.chain.create_streams([StreamSetup(stream, 1000 * WEI)])
    network.chain.mine(4)
    return stream


def ids(reader: ChainReader) -> set[str]:
    return {store.stream_id for store in reader.fetch_state(reader.fetch_finalised()).stores}


def logs_before(limit: Callable[[], int]) -> Callable[[Call, Answer], Answer]:
    """Logs of a node that is behind: what it does not have is not in its answer."""

    def after(call: Call, given: Answer) -> Answer:
        if call["method"] == "eth_getLogs" and "result" in given:
            return {"result": [log for log in given["result"] if int(log["blockNumber"], 16) < limit()]}
        return given

    return after


def test_logs_of_a_node_that_lags_behind_a_balancer_lose_no_stream(node: str, network: ContractNetwork) -> None:
    """Every other answer comes from a node that is up to date."""
    with Provider(node) as provider:
        reader = a_reader(network, provider.url, index=(index := MemoryIndex()))
        before = ids(reader)
        edge = reader.fetch_head().number
        stream = create_stream(network, "lagging")
        provider.after = logs_before(lambda: edge)
        for _ in range(3):
            with pytest.raises(TransientError, match="stores that no log names"):
                ids(reader)
        kept = index.load()
        assert kept is not None
        assert kept.upto <= edge
        provider.after = logs_before(lambda: 1 << 60)
        network.chain.mine(20)
        assert ids(reader) == before | {stream}
        reader.close()


def test_a_list_that_was_kept_with_a_gap_is_mended(node: str, network: ContractNetwork) -> None:
    stream = create_stream(network, "gap")
    network.chain.mine(5)
    complete = a_reader(network, node)
    everything = ids(complete)
    assert stream in everything
    upto = complete.fetch_finalised().number
    index = MemoryIndex(StoreList(upto, frozenset(everything - {stream})))
    reader = a_reader(network, node, index=index)
    with pytest.raises(TransientError, match="stores that no log names"):
        ids(reader)
    assert ids(reader) == everything
    kept = index.load()
    assert kept is not None
    assert stream in kept.stream_ids
    complete.close()
    reader.close()


def behind(edge: Callable[[], int]) -> Callable[[Call, Answer], Answer]:
    """A whole node that is behind: it has no later block, and no logs of one."""

    def after(call: Call, given: Answer) -> Answer:
        logs = logs_before(edge)(call, given)
        if call["method"] == "eth_getBlockByNumber" and isinstance(given.get("result"), dict):
            return given if int(given["result"]["number"], 16) < edge() else {"result": None}
        return logs

    return after


def test_of_three_sources_one_that_lags_changes_nothing(node: str, network: ContractNetwork) -> None:
    with Provider(node) as first, Provider(node) as second, Provider(node) as third:
        reader = a_reader(network, first.url, second.url, third.url)
        before = ids(reader)
        edge = reader.fetch_head().number
        stream = create_stream(network, "one-of-three")
        first.after = behind(lambda: edge)
        assert ids(reader) == before | {stream}
        reader.close()


def test_on_a_long_way_logs_count_only_with_the_last_block_from_the_same_source(
    node: str, network: ContractNetwork
) -> None:
    """Two of three lag in their logs, and do not have the blocks that they are asked about."""
    stream = create_stream(network, "long-way")
    network.chain.mine(40)
    edge = network.chain.deployment.block + 1
    with Provider(node) as first, Provider(node) as second:
        for provider in (first, second):
            provider.after = behind(lambda: edge)
        reader = a_reader(network, first.url, second.url, node, index=(index := MemoryIndex()), log_range=2)
        head = a_reader(network, node).fetch_finalised()
        with pytest.raises(TransientError):
            reader.fetch_state(head)
        assert index.load() is None or index.load().upto < edge  # type: ignore[union-attr]
        for provider in (first, second):
            provider.after = lambda _, given: given
        assert stream in {store.stream_id for store in reader.fetch_state(head).stores}
        reader.close()


def test_an_id_that_is_no_text_hides_no_other_stream(node: str, network: ContractNetwork) -> None:
    """Its store holds something, and is in no state."""
    snapshot = network.chain.call_rpc("evm_snapshot")
    from validator.net.chain.abi import interface

    stake = interface("StoreManager").function("stake").selector
    create = interface("StreamRegistry").function("createStreamWithENS").selector

    def word(number: int) -> bytes:
        return number.to_bytes(32, "big")

    def text(raw: bytes) -> bytes:
        return word(len(raw)) + raw.ljust((len(raw) + 31) // 32 * 32, b"\0")

    owner, stream = a_key(1), b"\xff\xfe/x"
    creation = create + word(96) + word(160) + word(224) + text(b"\xff\xfe") + text(b"/x") + text(b"{}")
    network.chain.transact_raw(owner, "StreamRegistry", creation)
    network.chain.transact_raw(owner, "StoreManager", stake + word(64) + word(5) + text(stream))
    index = MemoryIndex()
    reader = a_reader(network, node, index=index)
    state = reader.fetch_state(reader.fetch_head())
    assert all("\udcff" not in store.stream_id for store in state.stores)
    network.chain.mine(4)
    assert len(ids(reader)) == len(state.stores)
    kept = index.load()
    assert kept is not None
    assert stream.decode(errors="surrogateescape") in kept.stream_ids
    reader.close()
    network.chain.call_rpc("evm_revert", snapshot)
    network.chain.forget_nonces()


RANGES = {
    "a number in a sentence": refusal(-32602, "eth_getLogs is limited to a 10,000 range"),
    "of results": refusal(-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
    "of a plan": refusal(-32600, "You can make eth_getLogs requests with up to a 10 block range"),
    "of a body": refusal(-32008, "Response is too big"),
    "without a word": refusal(-32000, ""),
}


@pytest.mark.parametrize("said", RANGES.values(), ids=RANGES.keys())
@pytest.mark.parametrize("limit", [1, 7, 1_999])
def test_ranges_of_blocks_shrink_to_what_a_provider_takes(
    node: str, network: ContractNetwork, said: Answer, limit: int
) -> None:
    network.chain.mine(30)

    def limited(call: Call) -> Answer | None:
        if call["method"] != "eth_getLogs":
            return None
        wanted = call["params"][0]
        return said if int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) >= limit else None

    complete = a_reader(network, node)
    with Provider(node) as provider:
        provider.instead = limited
        reader = a_reader(network, provider.url)
        assert ids(reader) == ids(complete)
        before = len(provider.bodies)
        network.chain.mine(2)
        ids(reader)
        assert len(provider.bodies) - before < 25
        reader.close()
    complete.close()


def of_method(method: str, answer: Callable[[Call], Answer | None]) -> Callable[[Call], Answer | None]:
    return lambda call: answer(call) if call["method"] == method else None


def without_finality(provider: Provider) -> None:
    known = ("latest", "0x")
    provider.instead = of_method(
        "eth_getBlockByNumber",
        lambda call: None if call["params"][0].startswith(known) else refusal(-32602, "invalid block tag"),
    )


def pruned(provider: Provider) -> None:
    def old(call: Call) -> Answer | None:
        at = call["params"][1]
        number = int(at, 16) if isinstance(at, str) and at.startswith("0x") else 1 << 40
        return refusal(-32000, "missing trie node") if number < 1 << 20 else None

    provider.instead = of_method("eth_getBalance", old)


def limited(provider: Provider) -> None:
    def narrow(call: Call) -> Answer | None:
        first, last = (int(call["params"][0][name], 16) for name in ("fromBlock", "toBlock"))
        return refusal(-32005, "block range is limited to 4") if last - first >= 4 else None

    provider.instead = of_method("eth_getLogs", narrow)


def lying(provider: Provider) -> None:
    def other(call: Call, given: Answer) -> Answer:
        if call["method"] == "eth_getBlockByNumber" and isinstance(given.get("result"), dict):
            given["result"]["hash"] = "0x" + "66" * 32
        return given

    provider.after = other


def lagging(provider: Provider) -> None:
    def behind(call: Call, given: Answer) -> Answer:
        if call["method"] == "eth_getBlockByNumber" and call["params"][0] == "latest":
            given["result"]["number"] = hex(int(given["result"]["number"], 16) - 6)
        return given

    provider.after = behind


def another_chain(provider: Provider) -> None:
    provider.instead = of_method("eth_chainId", lambda _: {"result": "0x1"})


def silent(provider: Provider) -> None:
    provider.gate = lambda _: Said(503)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (without_finality, "does not know the block finalized"),
        (pruned, "lacks the state of old blocks"),
        (limited, "gives no logs of"),
        (lying, "names another block"),
        (lagging, "6 blocks behind"),
        (another_chain, "is chain 1, the network 31337"),
        (silent, "does not answer: HTTP 503"),
    ],
)
def test_a_source_is_named_for_what_it_cannot_do_and_used_for_what_it_can(
    node: str, network: ContractNetwork, fault: Callable[[Provider], None], named: str
) -> None:
    network.chain.mine(10)
    with Provider(node) as second, Provider(node) as third:
        reader = a_reader(network, node, second.url, third.url, deadline_s=5.0)
        assert reader.examine() == []
        whole = ids(reader)
        fault(third)
        found = [text for text in reader.examine() if named in text]
        assert [text.partition(" ")[0] for text in found] == [third.url.removeprefix("http://")]
        assert ids(reader) == whole
        assert reader.fetch_block_at(reader.fetch_finalised().timestamp_s - 1) is not None
        reader.close()


def test_where_too_few_sources_keep_old_state_the_operator_is_told(node: str, network: ContractNetwork) -> None:
    with Provider(node) as provider:
        pruned(provider)
        reader = a_reader(network, provider.url)
        assert any("too few sources keep the state of old blocks" in text for text in reader.examine())
        reader.close()
