"""A contract that signs messages is foreign code: what it does to a source is told from a source that is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from validator.net.chain.jsonrpc import Request
from validator.net.chain.reader import ChainReader
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, Block, Digest
from validator.protocol.parameters import Contracts

CONTRACTS = Contracts(*(Address(bytes([0xA0 + i]) * 20) for i in range(6)))
HEAD = Block(90, Digest(b"\x01" * 32), 1_000)
WALLET = Address(b"\x06" * 20)


class Sources:
    """Two sources that know the code of the wallet, and answer a call of it with ``said`` and ``fields``."""

    hosts = ("a", "b")

    def __init__(self, code: str, said: dict[str, str], **fields: Any) -> None:
        self.code = code
        self.error = TransientError("RPC sources do not answer", sources=said, **fields)
        self.asked: list[str] = []

    def agree(self, requests: Sequence[Request[Any]]) -> list[Any]:
        (request,) = requests
        self.asked.append(request.method)
        if request.method == "eth_call":
            raise self.error
        return [request.parse(self.code)]


def ask(rpc: Sources) -> bool:
    reader = ChainReader(["http://127.0.0.1:1"], CONTRACTS)
    reader.rpc.close()
    reader.rpc = rpc  # type: ignore[assignment]
    return reader.fetch_is_valid_signature(WALLET, HEAD.hash, b"", HEAD)


def test_what_has_no_code_is_not_run() -> None:
    rpc = Sources("0x", {"a": "eth_call: bn256: malformed point"}, reason="unavailable")
    assert ask(rpc) is False
    assert rpc.asked == ["eth_getCode"]


@pytest.mark.parametrize(
    ("said", "fields", "reason"),
    [
        ({"a": "eth_call: odd", "b": "eth_call: another"}, {"reason": "unavailable", "retry_after_s": 0.0}, "foreign"),
        ({"a": "eth_call: odd", "b": "timed out"}, {"reason": "unavailable", "retry_after_s": 0.0}, "unavailable"),
        ({"a": "eth_call: odd"}, {"reason": "unavailable", "retry_after_s": 0.0}, "unavailable"),
        ({"a": "eth_call: x", "b": "eth_call: x"}, {"reason": "unavailable", "retry_after_s": 2.0}, "unavailable"),
        ({"a": "eth_call: x", "b": "eth_call: x"}, {"reason": "pruned"}, "pruned"),
        ({}, {"reason": "disagreement"}, "disagreement"),
    ],
)
def test_only_sources_that_are_there_and_all_fail_at_this_call_blame_the_contract(
    said: dict[str, str], fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TransientError) as caught:
        ask(Sources("0x60", said, **fields))
    assert caught.value.reason == reason
