"""Controls below /devnet: what the real network lacks.

POST   /devnet/mint/{address}/{winston}   fund a wallet; answers the new balance
POST   /devnet/mine/{blocks}              mine now
POST   /devnet/fork/{blocks}              replace so many of the newest blocks; transactions go back to the mempool
POST   /devnet/fork/{blocks}/drop         the same, and their transactions are lost
POST   /devnet/price/{permille}           the price from the next block on, in thousandths of the usual one
POST   /devnet/keep/{yes|no}              whether chunks are kept: where not they are answered with 303
POST   /devnet/lag/{blocks}               GraphQL knows nothing of so many of the newest blocks, nor of what is pending
POST   /devnet/drop/{id}                  forget a pending transaction
POST   /devnet/forget/{id}/{offset}       lose the chunk with that byte
GET    /devnet/stats                      what was paid, taken, asked and spoilt (``Weave.compute_stats``)
POST   /devnet/faults                     add a rule (``faults.Fault``); DELETE removes all; GET lists those left
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from validator.devnet.gateway.faults import Rules, decode_fault
from validator.devnet.gateway.index import Index
from validator.devnet.gateway.requests import parse_address, parse_id, parse_integer, read_body
from validator.devnet.gateway.weave import Weave
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import MalformedInput

MAX_BODY_BYTES = 64 * 1024
MAX_MINT_WINSTON = 10**24
MAX_MINED_AT_ONCE = 1000


class Controls:
    """The routes of tests and of the conductor."""

    def __init__(
        self,
        weave: Weave,
        index: Index,
        rules: Rules,
        mine_block: Callable[[], None],
        log: Callable[..., None],
    ) -> None:
        self.weave = weave
        self.index = index
        self.rules = rules
        self.mine_block = mine_block
        self.log = log

    def routes(self) -> list[Route]:
        return [
            Route("/devnet/mint/{address}/{winston}", self.mint, methods=["POST"]),
            Route("/devnet/mine/{blocks}", self.mine, methods=["POST"]),
            Route("/devnet/fork/{blocks}", self.fork, methods=["POST"]),
            Route("/devnet/fork/{blocks}/{drop}", self.fork, methods=["POST"]),
            Route("/devnet/price/{permille}", self.set_price, methods=["POST"]),
            Route("/devnet/keep/{answer}", self.set_keeping, methods=["POST"]),
            Route("/devnet/lag/{blocks}", self.set_lag, methods=["POST"]),
            Route("/devnet/drop/{id}", self.drop, methods=["POST"]),
            Route("/devnet/forget/{id}/{offset}", self.forget, methods=["POST"]),
            Route("/devnet/stats", self.get_stats),
            Route("/devnet/faults", self.get_faults),
            Route("/devnet/faults", self.add_fault, methods=["POST"]),
            Route("/devnet/faults", self.clear_faults, methods=["DELETE"]),
        ]

    async def mint(self, request: Request) -> Response:
        winston = parse_integer(request, "winston")
        address = parse_address(request)
        if winston > MAX_MINT_WINSTON or len(address) != arweave.ADDRESS_BYTES:
            raise HTTPException(400, "Invalid address or amount.")
        self.log("mint", address=encode_base64url(address), winston=str(winston))
        return PlainTextResponse(str(self.weave.mint(address, winston)))

    async def mine(self, request: Request) -> Response:
        for _ in range(min(parse_integer(request, "blocks"), MAX_MINED_AT_ONCE)):
            self.mine_block()
        return PlainTextResponse(str(self.weave.tip.height))

    async def fork(self, request: Request) -> Response:
        drops = request.path_params.get("drop", "")
        if drops not in ("", "drop"):
            raise HTTPException(404)
        undone = self.weave.fork(parse_integer(request, "blocks"), int(time.time()), drops=bool(drops))
        ids = [encode_base64url(entry.tx.id) for entry in undone]
        self.log("fork", height=self.weave.tip.height, ids=ids, dropped=bool(drops))
        return JSONResponse(ids)

    async def set_price(self, request: Request) -> Response:
        self.weave.next_price_permille = parse_integer(request, "permille")
        return PlainTextResponse("OK")

    async def set_keeping(self, request: Request) -> Response:
        answer = request.path_params["answer"]
        if answer not in ("yes", "no"):
            raise HTTPException(404)
        self.weave.keeps_chunks = answer == "yes"
        return PlainTextResponse("OK")

    async def set_lag(self, request: Request) -> Response:
        self.index.lag_blocks = parse_integer(request, "blocks")
        return PlainTextResponse("OK")

    async def drop(self, request: Request) -> Response:
        entry = self.weave.entries.get(parse_id(request))
        if entry is None or entry.height is not None:
            return PlainTextResponse("Not pending.", 404)
        self.weave.forget(entry.tx.id)
        return PlainTextResponse("OK")

    async def forget(self, request: Request) -> Response:
        entry = self.weave.entries.get(parse_id(request))
        if entry is None or not self.weave.forget_chunk(entry, parse_integer(request, "offset")):
            return PlainTextResponse("No such chunk.", 404)
        return PlainTextResponse("OK")

    async def get_stats(self, _: Request) -> Response:
        counted = {"requests": dict(self.rules.requests), "faults": dict(self.rules.struck)}
        return JSONResponse({**self.weave.compute_stats(), **counted})

    async def get_faults(self, _: Request) -> Response:
        return JSONResponse(msgspec.to_builtins(self.rules.faults))

    async def add_fault(self, request: Request) -> Response:
        try:
            self.rules.add(decode_fault(await read_body(request, MAX_BODY_BYTES)))
        except MalformedInput as error:
            return PlainTextResponse(str(error), 400)
        return PlainTextResponse("OK")

    async def clear_faults(self, _: Request) -> Response:
        self.rules.clear()
        return PlainTextResponse("OK")
