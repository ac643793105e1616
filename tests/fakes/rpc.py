"""A chain in memory that answers what validator.net.chain.blocks asks of ``Rpc``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from validator.net.chain.jsonrpc import Request
from validator.protocol.errors import TransientError


class FakeRpc:
    """Blocks 0, 1, … with the given timestamps (seconds); ``final`` is the number of the newest final one."""

    hosts = ("node",)
    majority = 1

    def __init__(self, times: Sequence[int], final: int) -> None:
        self.times = times
        self.final = final
        self.reads = 0
        self.branch: dict[int, bytes] = {}
        """By number what distinguishes a block that has replaced another."""

    def agree(self, requests: Sequence[Request[Any]]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request[Any]) -> Any:
        self.reads += 1
        name = request.params[0]
        number = {"latest": len(self.times) - 1, "finalized": self.final}.get(name)
        if number is None:
            number = int(name, 16)
        if number >= len(self.times):
            raise TransientError("no such block", reason="unavailable")
        digest = hashlib.sha256(number.to_bytes(8, "big") + self.branch.get(number, b"")).hexdigest()
        return request.parse(
            {"number": hex(number), "hash": "0x" + digest, "timestamp": hex(self.times[number]), "parentHash": "0x00"}
        )
