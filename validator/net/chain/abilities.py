"""What each source can do, asked one by one: for the operator who chose them.

A source that lags, prunes, limits or does not know ``finalized`` is used for what it can, and outvoted where it lies;
all this goes on silently. Here it is named, with what it means, before the day on which the others are away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from validator.net.chain.blocks import parse_block
from validator.net.chain.jsonrpc import Failed, Request, Reverted
from validator.net.chain.rpc import Rpc
from validator.net.chain.values import parse_quantity
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Block

BEHIND_BLOCKS = 5
"""Sources are asked at one time, yet a new block reaches them one after the other."""


def examine_sources(
    rpc: Rpc, *, chain_id: int | None, contract: Address, first_block: int, tag: str | None, log_range: int
) -> Iterator[str]:
    """One sentence for each thing that a source cannot do or does wrong; nothing for a good one.

    ``contract`` stands since ``first_block``; ``tag``: how finality is asked for, None where blocks are counted;
    ``log_range``: blocks whose logs are asked for at once.
    """
    heads: dict[str, Block] = {}
    for host, answer in rpc.every(_block("latest")):
        if isinstance(answer, Block):
            heads[host] = answer
        else:
            yield f"{host} does not answer: {_reason(answer)}"
    if not heads:
        return
    newest = max(block.number for block in heads.values())
    for host, block in heads.items():
        if newest - block.number > BEHIND_BLOCKS:
            yield f"{host} is {newest - block.number} blocks behind the others"
    for host, answer in _ask(rpc, heads, Request("eth_chainId", (), parse_quantity)):
        if answer != chain_id and chain_id is not None:
            yield f"{host} is chain {answer}, the network {chain_id}"
    yield from _find_liars(rpc, heads)
    if tag is not None:
        for host, answer in _ask(rpc, heads, _block(tag)):
            if not isinstance(answer, Block):
                yield f"{host} does not know the block {tag}: of no help in finding cut points ({_reason(answer)})"
    yield from _find_short_memories(rpc, heads, contract, first_block)
    logs = {"address": "0x" + contract.hex(), "fromBlock": hex(max(first_block, newest - log_range + 1))}
    for host, answer in _ask(rpc, heads, Request("eth_getLogs", ({**logs, "toBlock": hex(newest)},), _parse_list)):
        if isinstance(answer, Failed) and newest - heads[host].number <= BEHIND_BLOCKS:
            yield f"{host} gives no logs of {log_range} blocks at once: a long way takes longer ({answer.reason})"


def _find_liars(rpc: Rpc, heads: dict[str, Block]) -> Iterator[str]:
    """Who names another block than the others at a height that all have reached."""
    common = min(block.number for block in heads.values())
    named = {host: a.hash for host, a in _ask(rpc, heads, _block(hex(common))) if isinstance(a, Block)}
    if not named:
        return
    (usual, times), *_ = Counter(named.values()).most_common()
    for host, digest in named.items():
        if digest != usual and times >= rpc.majority:
            yield f"{host} names another block {common} than the majority: on a fork, or it lies"


def _find_short_memories(rpc: Rpc, heads: dict[str, Block], contract: Address, first_block: int) -> Iterator[str]:
    request = Request("eth_getBalance", ("0x" + contract.hex(), hex(first_block)), parse_quantity)
    answers = _ask(rpc, heads, request)
    lacking = [host for host, answer in answers if isinstance(answer, Failed)]
    for host in lacking:
        yield f"{host} lacks the state of old blocks: of no help after an absence"
    if answers and len(answers) - len(lacking) < rpc.majority:
        yield "too few sources keep the state of old blocks: what this validator misses it cannot read later"


def _ask(rpc: Rpc, heads: dict[str, Block], request: Request[Any]) -> list[tuple[str, Any]]:
    """Of those that answer at all."""
    return [(host, answer) for host, answer in rpc.every(request) if host in heads]


def _block(name: str) -> Request[Block | None]:
    return Request("eth_getBlockByNumber", (name, False), parse_block)


def _parse_list(value: Any) -> bool:
    if not isinstance(value, list):
        raise MalformedInput("logs", "not a list")
    return True


def _reason(answer: Failed | Reverted | None) -> str:
    return answer.reason if isinstance(answer, Failed) else "it has none"
