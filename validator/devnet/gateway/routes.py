"""What nodes and gateways answer: headers, chunks, wallets, blocks, data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from validator.devnet.gateway.bundled import Bundled
from validator.devnet.gateway.controls import Controls
from validator.devnet.gateway.faults import FaultKind, Faults, Rules, fault_of
from validator.devnet.gateway.index import Index
from validator.devnet.gateway.requests import parse_address, parse_block_hash, parse_id, parse_integer, read_body
from validator.devnet.gateway.weave import BlockInfo, Entry, Weave
from validator.protocol.codec import arweave, arweave_chunks, arweave_text
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.errors import MalformedInput

MAX_TX_BODY_BYTES = 15 * 1024 * 1024
MAX_CHUNK_BODY_BYTES = 1024 * 1024
MAX_QUERY_BODY_BYTES = 64 * 1024
MAX_JSON_DATA_BYTES = 12 * 1024 * 1024


def allow_pages(app: ASGIApp) -> ASGIApp:
    """Let scripts of any web page read answers, as public gateways do; the controls are for no page."""
    open_to_pages = CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        expose_headers=["Content-Range", "Content-Length", "ETag"],
    )

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope["type"] == "http" and scope["path"].startswith("/devnet/")
        await (app if is_control else open_to_pages)(scope, receive, send)

    return choose


def _show_header(entry: Entry) -> Response:
    """A header as it is read: what came inside it is data like any other, and read as such."""
    return JSONResponse(arweave.encode_transaction(replace(entry.tx, data=b"")))


class Gateway:
    """The routes. All handlers run on one event loop, so the weave needs no lock."""

    def __init__(self, weave: Weave, log: Callable[..., None], mine_ms: int) -> None:
        self.weave = weave
        self.log = log
        self.mine_ms = mine_ms
        self.rules = Rules()
        self.bundled = Bundled(weave)
        self.index = Index(weave, self.bundled)

    def build_app(self) -> ASGIApp:
        controls = Controls(self.weave, self.index, self.rules, self.mine_block, self.log)
        routes = [
            Route("/", self.get_info),
            Route("/info", self.get_info),
            Route("/height", self.get_height),
            Route("/time", self.get_time),
            Route("/peers", self.get_peers),
            Route("/block/current", self.get_current_block),
            Route("/block/height/{height}", self.get_block_at),
            Route("/block/hash/{hash}", self.get_block),
            Route("/tx_anchor", self.get_anchor),
            Route("/price/{size}", self.get_price),
            Route("/price/{size}/{address}", self.get_price),
            Route("/wallet/{address}/balance", self.get_balance),
            Route("/wallet/{address}/last_tx", self.get_last_transaction),
            Route("/tx", self.post_transaction, methods=["POST"]),
            Route("/tx/pending", self.get_pending),
            Route("/tx/{id}", self.get_transaction),
            Route("/tx/{id}/status", self.get_status),
            Route("/tx/{id}/offset", self.get_offset),
            Route("/tx/{id}/data", self.get_data),
            Route("/unconfirmed_tx/{id}", self.get_unconfirmed),
            Route("/chunk", self.post_chunk, methods=["POST"]),
            Route("/chunk/{position}", self.get_chunk),
            Route("/graphql", self.post_graphql, methods=["POST"]),
            *controls.routes(),
            Route("/raw/{id}", self.get_raw),
            Route("/{id}", self.get_content),
        ]
        return Faults(allow_pages(Starlette(routes=routes, lifespan=self.lifespan)), self.rules)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        miner = asyncio.create_task(self.mine_for_ever()) if self.mine_ms else None
        try:
            yield
        finally:
            if miner is not None:
                miner.cancel()

    async def mine_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.mine_ms / 1000)
            self.mine_block()

    def mine_block(self) -> None:
        mined = self.weave.mine(int(time.time()))
        for entry in mined:
            self.log("mined", id=encode_base64url(entry.tx.id), height=entry.height)

    # --- the chain ---

    def _tip(self, request: Request) -> BlockInfo:
        """The newest block, or an older one that a rule takes for it."""
        fault = fault_of(request, FaultKind.STALE)
        return self.weave.tip if fault is None else self.weave.blocks[max(0, self.weave.tip.height - fault.amount)]

    async def get_info(self, request: Request) -> Response:
        tip = self._tip(request)
        return JSONResponse(
            {
                "network": "logstore.devnet",
                "version": 5,
                "release": 1,
                "height": tip.height,
                "current": encode_base64url(tip.hash),
                "blocks": tip.height + 1,
                "peers": 0,
                "queue_length": len(self.weave.pending),
            }
        )

    async def get_height(self, request: Request) -> Response:
        return PlainTextResponse(str(self._tip(request).height))

    async def get_time(self, _: Request) -> Response:
        return PlainTextResponse(str(int(time.time())))

    async def get_peers(self, _: Request) -> Response:
        return JSONResponse([])  # the only node there is

    async def get_current_block(self, _: Request) -> Response:
        return JSONResponse(self._describe_block(self.weave.tip))

    async def get_block_at(self, request: Request) -> Response:
        height = parse_integer(request, "height")
        if height >= len(self.weave.blocks):
            return PlainTextResponse("Block not found.", 404)
        return JSONResponse(self._describe_block(self.weave.blocks[height]))

    async def get_block(self, request: Request) -> Response:
        wanted = parse_block_hash(request)
        block = next((b for b in reversed(self.weave.blocks) if b.hash == wanted), None)
        if block is None:
            return PlainTextResponse("Block not found.", 404)
        return JSONResponse(self._describe_block(block))

    def _describe_block(self, block: BlockInfo) -> dict[str, object]:
        """As much of a block as who follows the chain asks for; nothing of its proof of work."""
        before = self.weave.blocks[block.height - 1].weave_size if block.height else 0
        return {
            "indep_hash": encode_base64url(block.hash),
            "previous_block": encode_base64url(block.previous),
            "height": block.height,
            "timestamp": block.timestamp_s,
            "txs": [encode_base64url(transaction_id) for transaction_id in block.transactions],
            "weave_size": str(block.weave_size),
            "block_size": str(block.weave_size - before),
        }

    async def get_anchor(self, _: Request) -> Response:
        return PlainTextResponse(encode_base64url(self.weave.anchor))

    async def get_price(self, request: Request) -> Response:
        target = parse_address(request) if "address" in request.path_params else b""
        winston = self.weave.compute_price(parse_integer(request, "size"), target)
        fault = fault_of(request, FaultKind.LYING_PRICE)
        fee = str(winston if fault is None else winston * fault.amount // 100)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"fee": fee, "denomination": 1})
        return PlainTextResponse(fee)

    async def get_balance(self, request: Request) -> Response:
        return PlainTextResponse(str(self.weave.balances.get(parse_address(request), 0)))

    async def get_last_transaction(self, request: Request) -> Response:
        return PlainTextResponse(encode_base64url(self.weave.last_confirmed.get(parse_address(request), b"")))

    # --- transactions ---

    async def post_transaction(self, request: Request) -> Response:
        body = await read_body(request, MAX_TX_BODY_BYTES)
        try:
            tx = arweave.decode_transaction_json(body, max_bytes=MAX_TX_BODY_BYTES, max_data_bytes=MAX_TX_BODY_BYTES)
        except MalformedInput as error:
            self.log("refused", reason=str(error))
            return PlainTextResponse("Invalid JSON.", 400)
        answer = self.weave.submit(tx)
        if answer.status == 200 and fault_of(request, FaultKind.FORGET):
            self.weave.forget(tx.id)
        codes = self.weave.find_failure(tx.id) if answer.status == 400 else ()
        self.log("header", id=encode_base64url(tx.id), status=answer.status, text=answer.text, codes=codes)
        return PlainTextResponse(answer.text, answer.status)

    def _find(self, request: Request) -> Entry | Response:
        transaction_id = parse_id(request)
        entry = self.weave.entries.get(transaction_id)
        if entry is not None:
            return entry
        codes = self.weave.find_failure(transaction_id)
        return PlainTextResponse(" ".join(codes), 410) if codes else PlainTextResponse("Not Found.", 404)

    async def get_transaction(self, request: Request) -> Response:
        entry = self._find(request)
        if isinstance(entry, Response):
            return entry
        if entry.height is None:
            return PlainTextResponse("Pending", 202)
        return _show_header(entry)

    async def get_unconfirmed(self, request: Request) -> Response:
        entry = self._find(request)
        return entry if isinstance(entry, Response) else _show_header(entry)

    async def get_pending(self, _: Request) -> Response:
        return JSONResponse([encode_base64url(entry.tx.id) for entry in self.weave.pending])

    async def get_status(self, request: Request) -> Response:
        entry = self.weave.entries.get(parse_id(request))
        tip = self._tip(request)
        if entry is None or (entry.height or 0) > tip.height:
            return PlainTextResponse("Not Found.", 404)
        if entry.height is None:
            return PlainTextResponse("Pending", 202)
        block = self.weave.blocks[entry.height]
        return JSONResponse(
            {
                "block_height": entry.height,
                "block_indep_hash": encode_base64url(block.hash),
                "number_of_confirmations": tip.height - entry.height + 1,
            }
        )

    async def get_offset(self, request: Request) -> Response:
        entry = self.weave.entries.get(parse_id(request))
        if entry is None or entry.height is None or not entry.tx.data_size:
            return PlainTextResponse("Not Found.", 404)
        size = entry.tx.data_size
        return JSONResponse({"offset": str(entry.weave_start + size), "size": str(size)})

    async def get_data(self, request: Request) -> Response:
        found = self.weave.find_readable(parse_id(request))
        if found is None:
            return PlainTextResponse("Not Found.", 404)
        if found[1].size > MAX_JSON_DATA_BYTES:
            return PlainTextResponse("The data is too big, download it in chunks.", 400)
        return PlainTextResponse(encode_base64url(found[1].read(0, found[1].size)))

    # --- data ---

    async def post_chunk(self, request: Request) -> Response:
        body = await read_body(request, MAX_CHUNK_BODY_BYTES)
        try:
            fields = arweave_text.decode_json_object(body, "chunk", max_bytes=MAX_CHUNK_BODY_BYTES)
            upload = arweave_chunks.decode_chunk(fields)
        except MalformedInput as error:
            self.log("chunk refused", error="invalid_json", reason=str(error))
            return JSONResponse({"error": "invalid_json"}, 400)
        error_code = self.weave.add_chunk(upload, forgets=fault_of(request, FaultKind.FORGET) is not None)
        if error_code is not None:
            self.log("chunk refused", error=error_code, offset=upload.offset)
            return JSONResponse({"error": error_code}, 400)
        return PlainTextResponse("OK", 200 if self.weave.keeps_chunks else 303)

    async def get_chunk(self, request: Request) -> Response:
        found = self.weave.find_at(parse_integer(request, "position"))
        if found is None:
            return PlainTextResponse("Not Found.", 404)
        _, stored, chunk = found
        return JSONResponse(
            {
                "chunk": encode_base64url(stored.read(chunk.start, chunk.end)),
                "data_path": encode_base64url(chunk.data_path),
                "tx_path": "",
                "packing": "unpacked",
            }
        )

    async def get_raw(self, request: Request) -> Response:
        return self._send_file(request, by_content_type=False)

    async def get_content(self, request: Request) -> Response:
        return self._send_file(request, by_content_type=True)

    def _send_file(self, request: Request, *, by_content_type: bool) -> Response:
        """The data of a transaction or of an item inside one, whole or by ranges."""
        wanted = parse_id(request)
        found = self.weave.find_readable(wanted)
        child = self.bundled.find(wanted) if found is None else None
        if found is not None:
            path, tags = found[1].path, found[0].tx.tags
        elif child is not None:
            path, tags = child.path, child.item.tags
        else:
            return PlainTextResponse("Not Found.", 404)
        types = [value.decode("latin-1") for name, value in tags if name == b"Content-Type"] if by_content_type else []
        plain = types[0] if types and types[0].isprintable() and types[0].isascii() else "application/octet-stream"
        return FileResponse(path, media_type=plain)

    # --- GraphQL ---

    async def post_graphql(self, request: Request) -> Response:
        body = await read_body(request, MAX_QUERY_BODY_BYTES)
        try:
            call = arweave_text.decode_json_object(body, "query", max_bytes=MAX_QUERY_BODY_BYTES)
        except MalformedInput as error:
            return JSONResponse({"data": None, "errors": [{"message": str(error)}]})
        fault = fault_of(request, FaultKind.DUPLICATE_ROWS) or fault_of(request, FaultKind.FORGED_ROWS)
        return JSONResponse(self.index.answer(call, fault.kind if fault else None))
