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
    old = Request("eth_getBalance", ("0x" + contract.hex(), hex(first_block)), parse_quantity)
    told = rpc.every([_block("latest"), Request("eth_chainId", (), parse_quantity), old, _block(tag or "latest")])
    heads: dict[str, Block] = {}
    for host, (head, chain, balance, final) in told.items():
        if not isinstance(head, Block):
            yield f"{host} does not answer: {_reason(head)}"
            continue
        heads[host] = head
        if chain != chain_id and chain_id is not None:
            yield f"{host} is chain {chain}, the network {chain_id}"
        if tag is not None and not isinstance(final, Block):
            yield f"{host} does not know the block {tag}: of no help in finding cut points ({_reason(final)})"
        if isinstance(balance, Failed):
            yield f"{host} lacks the state of old blocks: of no help after an absence"
    if not heads:
        return
    if sum(not isinstance(told[host][2], Failed) for host in heads) < rpc.majority:
        yield "too few sources keep the state of old blocks: what this validator misses it cannot read later"
    yield from _compare(rpc, heads, contract, log_range, first_block)


def _compare(rpc: Rpc, heads: dict[str, Block], contract: Address, log_range: int, first_block: int) -> Iterator[str]:
    """What shows beside the others: who lags, who names another block at a height that all have reached; and logs."""
    newest, common = (pick(block.number for block in heads.values()) for pick in (max, min))
    span = {"address": "0x" + contract.hex(), "fromBlock": hex(max(first_block, common - log_range + 1))}
    logs = Request("eth_getLogs", ({**span, "toBlock": hex(common)},), _parse_list)
    told = rpc.every([_block(hex(common)), logs])
    named = {host: told[host][0].hash for host in heads if isinstance(told[host][0], Block)}
    (usual, times), *_ = Counter(named.values()).most_common() or [(None, 0)]
    for host, block in heads.items():
        if newest - block.number > BEHIND_BLOCKS:
            yield f"{host} is {newest - block.number} blocks behind the others"
        if named.get(host, usual) != usual and times >= rpc.majority:
            yield f"{host} names another block {common} than the majority: on a fork, or it lies"
        found = told[host][1]
        if isinstance(found, Failed):
            yield f"{host} gives no logs of {log_range} blocks at once: a long way takes longer ({found.reason})"


def _block(name: str) -> Request[Block | None]:
    return Request("eth_getBlockByNumber", (name, False), parse_block)


def _parse_list(value: Any) -> bool:
    if not isinstance(value, list):
        raise MalformedInput("logs", "not a list")
    return True


def _reason(answer: Failed | Reverted | None) -> str:
    return answer.reason if isinstance(answer, Failed) else "it has none"
