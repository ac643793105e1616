"""Whatever a source answers, a reader returns what it promises or names a fault of the family; nothing else escapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from functools import cache
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from validator.net.chain.abi import decode_values, interface
from validator.net.chain.blocks import Blocks
from validator.net.chain.jsonrpc import Request
from validator.net.chain.reader import LOG_RANGE, ChainReader
from validator.net.chain.store_index import MemoryIndex
from validator.net.chain.values import MAX_NUMBER
from validator.net.http.pacing import Allowance, Pace
from validator.protocol.codec.limits import MAX_TIMESTAMP_MS
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.protocol.model import Address, Block, ChainState, Digest
from validator.protocol.parameters import Contracts
from validator.store.chain import decode_state, encode_state

CONTRACTS = Contracts(*(Address(bytes([0xA0 + i]) * 20) for i in range(6)))
HEAD = Block(90, Digest(b"\x01" * 32), 1_000)


class AnyAnswers:
    """In the place of ``Rpc``: one source whose results are ``answer(method, parameters)``."""

    hosts = ("node",)
    majority = 1

    def __init__(self, answer: Callable[[str, Sequence[Any]], Any]) -> None:
        self.answer = answer

    def agree(self, requests: Sequence[Request[Any]], *, together: bool = False) -> list[Any]:
        return [self._one(request) for request in requests]

    def each_at_least(self, request: Request[Any], _enough: int) -> list[Any]:
        return [self._one(request)]

    def _one(self, request: Request[Any]) -> Any:
        try:
            return request.parse(json.loads(json.dumps(self.answer(request.method, request.params))))
        except MalformedInput as fault:
            raise TransientError(f"{request.method}: {fault.message}", reason="unavailable") from fault


@cache
def _reader() -> ChainReader:
    """Made once: a client for HTTPS costs a tenth of a second."""
    return ChainReader(["http://127.0.0.1:1"], CONTRACTS)


def reader_of(answer: Callable[[str, Sequence[Any]], Any]) -> ChainReader:
    """A reader that remembers nothing."""
    reader = copy(_reader())
    rpc: Any = AnyAnswers(answer)
    reader._log_range, reader._back_pace = Allowance(LOG_RANGE), Pace()
    reader.rpc, reader._blocks, reader._index = rpc, Blocks(rpc, finality="finalized"), MemoryIndex()
    return reader


READS: dict[str, Callable[[ChainReader], Any]] = {
    "head": lambda r: r.fetch_head(),
    "finalised": lambda r: r.fetch_finalised(),
    "cut point": lambda r: r.fetch_block_at(500),
    "state": lambda r: r.fetch_state(HEAD),
    "permission": lambda r: r.fetch_publish_permission("0x00/a\x00b", b"\x04" * 2592, HEAD),
    "consumers": lambda r: r.fetch_consumers([Address(bytes(20))], HEAD),
    "balance": lambda r: r.fetch_native_balance(Address(bytes(20))),
    "signature": lambda r: r.fetch_is_valid_signature(Address(bytes(20)), HEAD.hash, b"", HEAD),
    "last report": lambda r: r.fetch_last_report(HEAD),
    "report": lambda r: r.fetch_report(0, HEAD),
    "config": lambda r: r.fetch_config(HEAD),
}
words = st.binary(min_size=32, max_size=32)
numbers = st.one_of(
    st.integers(0, 3), st.sampled_from([MAX_NUMBER, 2**63, 2**64 - 1, 2**256 - 1]), st.integers(0, 2**256 - 1)
)
hexes = st.one_of(
    st.binary(max_size=200).map(lambda b: "0x" + b.hex()),
    st.lists(st.one_of(words, numbers.map(lambda n: n.to_bytes(32, "big"))), max_size=12).map(
        lambda ws: "0x" + b"".join(ws).hex()
    ),
    numbers.map(hex),
    st.sampled_from(["0x", "0x-1", "0x 1", "0x1_0", "0x٣", "0x0 0", ""]),
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(-1, 2**64), st.floats(), st.text(max_size=8), hexes)
keys = st.sampled_from(["number", "hash", "timestamp", "parentHash", "address", "topics", "data", "removed"])
answers = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=5)), max_leaves=8
)
blocks = st.fixed_dictionaries(
    {"number": numbers.map(hex), "hash": words.map(lambda w: "0x" + w.hex()), "timestamp": numbers.map(hex)}
)


@pytest.mark.parametrize("name", READS)
@given(data=st.data())
def test_any_answer_is_a_value_or_a_named_fault(name: str, data: st.DataObject) -> None:
    reader = reader_of(lambda _method, _parameters: data.draw(st.one_of(answers, blocks)))
    with suppress(ValidatorError):
        READS[name](reader)


def abi(contract: str, function: str, values: Sequence[Any]) -> str:
    types = [kind.replace("string", "bytes") for kind in interface(contract).function(function).outputs]
    return "0x" + encode(types, values).hex()


chars = st.characters(codec="utf-8")
ids = st.one_of(st.text(chars, min_size=1, max_size=60).map(str.encode), st.binary(max_size=300))
texts = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [
            b"[" * 5000,
            b'{"validator":"https://\\ud800.example"}',
            b'{"http":"http://a\\u0000b"}',
            b'{"http":1e999,"validator":NaN}',
            b'{"partitions":' + b"9" * 5000 + b"}",
            b'{"partitions":true}',
            b'{"partitions":1e2}',
            b'{"validator":"https://v.example/' + "ö".encode() + b'"}',
            b'{"x":"' + b"x" * 70_000 + b'"}',
        ]
    ),
)


@given(
    nodes=st.lists(st.tuples(st.binary(min_size=20, max_size=20), numbers, texts), max_size=4),
    stores=st.lists(st.tuples(ids, numbers.map(lambda n: n // 4), texts), max_size=4, unique_by=lambda s: s[0]),
)
def test_any_state_that_contracts_can_hold_is_read_and_kept(
    nodes: list[tuple[bytes, int, bytes]], stores: list[tuple[bytes, int, bytes]]
) -> None:
    """Every id, balance, stake and text of strangers; those that no message could name are left out, alone."""
    by_id = {stream_id: (balance, text) for stream_id, balance, text in stores}
    selectors = {interface(c).function(f).selector: f for c, f in FUNCTIONS}

    def answer(method: str, parameters: Sequence[Any]) -> Any:
        if method == "eth_getLogs":
            return [a_log(stream_id) for stream_id in by_id]
        if method == "eth_getBlockByNumber":
            return {"number": hex(HEAD.number), "hash": "0x" + HEAD.hash.hex(), "timestamp": hex(HEAD.timestamp_s)}
        call = bytes.fromhex(parameters[0]["data"][2:])
        name = selectors[call[:4]]
        if name == "stakedNodes":
            return (
                abi(
                    "NodeManager",
                    name,
                    (len(nodes), *map(list, zip(*nodes, strict=True)), list(range(1, len(nodes) + 1))),
                )
                if nodes
                else NOBODY
            )
        if name == "totalSupply":
            return abi("StoreManager", name, (sum(balance for balance, _ in by_id.values()),))
        if name == "storesOf":
            asked = decode_values(("string[]",), call[4:], "asked")[0]
            return abi(
                "StoreManager",
                name,
                ([by_id[i][0] for i in asked], [0] * len(asked), [1 + list(by_id).index(i) for i in asked]),
            )
        asked = decode_values(("string",), call[4:], "asked")[0]
        return abi("StreamRegistry", name, (by_id[asked][1],))

    state = reader_of(answer).fetch_state(HEAD)
    good = {i.decode(): b for i, (b, _) in by_id.items() if b and 0 < len(i) <= 256 and is_text(i)}
    assert {s.stream_id: s.balance for s in state.stores} == good
    assert sorted(n.stake for n in state.nodes) == sorted(stake for _, stake, _ in nodes)
    assert decode_state(encode_state(state)) == ChainState(
        state.block,
        state.nodes,
        tuple(sorted(state.stores, key=lambda s: s.stream_id.encode())),
        state.system_stream,
        {},
    )


@given(
    total=numbers,
    lists=st.tuples(
        st.lists(words.map(lambda w: w[:20]), max_size=3),
        st.lists(numbers, max_size=3),
        st.lists(texts, max_size=3),
        st.lists(numbers, max_size=3),
    ),
)
def test_pages_of_nodes_that_do_not_add_up_are_a_fault(
    total: int, lists: tuple[list[bytes], list[int], list[bytes], list[int]]
) -> None:
    told = abi("NodeManager", "stakedNodes", (total, *lists))
    nothing = "0x" + interface("StoreManager").function("totalSupply").selector.hex()
    last = {"number": hex(HEAD.number), "hash": "0x" + HEAD.hash.hex(), "timestamp": hex(HEAD.timestamp_s)}
    other: dict[str, Any] = {"eth_getLogs": [], "eth_getBlockByNumber": last}

    def answer(method: str, parameters: Sequence[Any]) -> Any:
        if method in other:
            return other[method]
        return "0x" + bytes(32).hex() if parameters[0]["data"] == nothing else told

    reader = reader_of(answer)
    reader._blocks._finalised = HEAD
    addresses, stakes, metadata, indices = lists
    if total == len(addresses) == len(stakes) == len(metadata) == len(indices) and max(indices, default=0) < 1 << 31:
        assert len(reader.fetch_state(HEAD).nodes) == total
    else:
        with pytest.raises(RemoteFault, match="stakedNodes"):
            reader.fetch_state(HEAD)


FUNCTIONS = (
    ("NodeManager", "stakedNodes"),
    ("StoreManager", "storesOf"),
    ("StoreManager", "totalSupply"),
    ("StreamRegistry", "getStreamMetadata"),
)
NOBODY = abi("NodeManager", "stakedNodes", (0, [], [], [], []))


def is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def a_log(stream_id: bytes) -> dict[str, Any]:
    return {
        "address": "0x" + CONTRACTS.store_manager.hex(),
        "topics": ["0x" + interface("StoreManager").events["StoreUpdated"].hex()],
        "data": "0x" + encode(["bytes", "bool", "uint256"], [stream_id, True, 1]).hex(),
        "blockNumber": "0x1",
        "logIndex": "0x0",
        "blockHash": "0x" + "11" * 32,
    }


@given(number=numbers, timestamp_s=numbers)
def test_a_block_is_one_that_everything_behind_can_keep_or_it_is_refused(number: int, timestamp_s: int) -> None:
    told = {"number": hex(number), "hash": "0x" + "11" * 32, "timestamp": hex(timestamp_s)}
    reader = reader_of(lambda _method, _parameters: told)
    fits = number < 2**63 and timestamp_s * 1000 <= MAX_TIMESTAMP_MS
    if fits:
        assert reader.fetch_head() == Block(number, Digest(b"\x11" * 32), timestamp_s)
    else:
        with pytest.raises(TransientError, match="more than 0x"):
            reader.fetch_head()
