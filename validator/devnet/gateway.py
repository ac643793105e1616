"""Arweave gateway of the development network: a node's and a gateway's routes over a small weave, on loopback.

    python -m validator.devnet.gateway --port-file FILE --data DIR [--mine-ms 500] [--log FILE] [--port 0]

Binds 127.0.0.1 and writes the port to the port file once it listens. Mines by itself every ``--mine-ms``; with 0
only on request. Below /devnet are the controls that the real network lacks:

    POST   /devnet/mint/{address}/{winston}   fund a wallet; answers the new balance
    POST   /devnet/mine/{blocks}              mine now
    POST   /devnet/drop/{id}                  forget a pending transaction
    POST   /devnet/forget/{id}/{offset}       lose the chunk with that byte
    GET    /devnet/stats                      headers paid per Bundle-Root and owner, balances, transactions
    POST   /devnet/faults                     add a rule (``Fault``); DELETE removes all; GET lists those left

Answers and texts follow the reference node where it has a say, ar.io's gateway for /raw and /graphql.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from validator.devnet import graphql
from validator.devnet.weave import Entry, Weave, text_tags
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave import decode_base64url, encode_base64url
from validator.protocol.errors import MalformedInput

MAX_TX_BODY_BYTES = 15 * 1024 * 1024
MAX_CHUNK_BODY_BYTES = 1024 * 1024
MAX_CONTROL_BODY_BYTES = 64 * 1024
MAX_JSON_DATA_BYTES = 12 * 1024 * 1024
MAX_MINT_WINSTON = 10**24
MAX_MINED_AT_ONCE = 1000
PAGE_TRANSACTIONS = 100
FAULT_KINDS = ("answer", "cut_before", "cut_after", "slow", "wrong_bytes", "endless")


# --- faults ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Fault:
    """One rule: requests with this method whose path matches the pattern (from its start) go wrong.

    Kinds: ``answer`` (status, body and headers instead of the truth), ``cut_before`` and ``cut_after`` (the connection
    ends without an answer, before or after the request took effect), ``slow`` (waits ``seconds`` first),
    ``wrong_bytes`` (the last byte of the body is another one), ``endless`` (a body without end).
    The first ``skip`` matching requests are spared, the next ``times`` are hit.
    """

    path: str
    kind: str
    method: str = ""
    skip: int = 0
    times: int = 1
    status: int = 500
    body: str = "<html><body>Internal Server Error</body></html>"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 1.0

    def hits(self, method: str, path: str) -> bool:
        if self.times <= 0 or (self.method and self.method != method) or not re.match(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def decode_fault(body: Mapping[str, Any]) -> Fault:
    """A rule from JSON. Raises MalformedInput."""
    try:
        fault = Fault(**body)
        re.compile(fault.path)
    except (TypeError, re.error) as error:
        raise MalformedInput("fault", str(error)) from error
    if fault.kind not in FAULT_KINDS:
        raise MalformedInput("fault.kind", f"none of {', '.join(FAULT_KINDS)}")
    return fault


class AbortableProtocol(H11Protocol):
    """HTTP connections that a fault can cut: open transports by the client's address."""

    transports: ClassVar[dict[tuple[str, int], asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.name = transport.get_extra_info("peername")
        self.transports[self.name] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transports.pop(self.name, None)
        super().connection_lost(exc)

    @classmethod
    def is_open(cls, scope: Scope) -> bool:
        return tuple(scope["client"]) in cls.transports

    @classmethod
    def cut(cls, scope: Scope) -> None:
        transport = cls.transports.get(tuple(scope["client"]))
        if transport is not None:
            transport.abort()


class Faults:
    """Middleware that applies the first rule that hits; /devnet itself never fails."""

    def __init__(self, app: ASGIApp, rules: list[Fault]) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = None
        if scope["type"] == "http" and not scope["path"].startswith("/devnet/"):
            rule = next((r for r in self.rules if r.hits(scope["method"], scope["path"])), None)
        if rule is None:
            await self.app(scope, receive, send)
        else:
            await self._fail(rule, scope, receive, send)

    async def _fail(self, rule: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if rule.kind == "answer":
            await Response(rule.body, rule.status, rule.headers, media_type="text/html")(scope, receive, send)
        elif rule.kind == "cut_before":
            AbortableProtocol.cut(scope)
        elif rule.kind == "cut_after":
            await self.app(scope, receive, _swallow)
            AbortableProtocol.cut(scope)
        elif rule.kind == "slow":
            await asyncio.sleep(rule.seconds)
            await self.app(scope, receive, send)
        elif rule.kind == "wrong_bytes":
            await self.app(scope, receive, _flip_last_byte(send))
        else:
            await self._stream_for_ever(scope, send)

    async def _stream_for_ever(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        while AbortableProtocol.is_open(scope):
            await send({"type": "http.response.body", "body": b"1" * 65536, "more_body": True})
            await asyncio.sleep(0.001)


async def _swallow(_: Message) -> None:
    """Take an answer that nobody will see."""


def _flip_last_byte(send: Send) -> Send:
    async def altered(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body:
            message = {**message, "body": body[:-1] + bytes([body[-1] ^ 1])}
        await send(message)

    return altered


# --- requests -------------------------------------------------------------------------------------


async def _read_body(request: Request, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise HTTPException(413, "Request body is too large.")
        parts.append(part)
    return b"".join(parts)


def _parse_id(request: Request, name: str = "id") -> bytes:
    try:
        return arweave.decode_storage_id(request.path_params[name], name)
    except MalformedInput as error:
        raise HTTPException(400, "Invalid hash.") from error


def _parse_address(request: Request) -> bytes:
    try:
        return decode_base64url(request.path_params["address"], "address", max_bytes=arweave.ADDRESS_BYTES)
    except MalformedInput as error:
        raise HTTPException(400, "Invalid address.") from error


def _parse_integer(request: Request, name: str) -> int:
    try:
        return arweave.decode_integer(request.path_params[name], name)
    except MalformedInput as error:
        raise HTTPException(400, str(error)) from error


class Gateway:
    """The routes. All handlers run on one event loop, so the weave needs no lock."""

    def __init__(self, weave: Weave, log: Callable[..., None], mine_ms: int) -> None:
        self.weave = weave
        self.log = log
        self.mine_ms = mine_ms
        self.faults: list[Fault] = []

    def build_app(self) -> ASGIApp:
        routes = [
            Route("/", self.get_info),
            Route("/info", self.get_info),
            Route("/height", self.get_height),
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
            Route("/devnet/mint/{address}/{winston}", self.mint, methods=["POST"]),
            Route("/devnet/mine/{blocks}", self.mine, methods=["POST"]),
            Route("/devnet/drop/{id}", self.drop, methods=["POST"]),
            Route("/devnet/forget/{id}/{offset}", self.forget, methods=["POST"]),
            Route("/devnet/stats", self.get_stats),
            Route("/devnet/faults", self.get_faults),
            Route("/devnet/faults", self.add_fault, methods=["POST"]),
            Route("/devnet/faults", self.clear_faults, methods=["DELETE"]),
            Route("/raw/{id}", self.get_raw),
            Route("/{id}", self.get_content),
        ]
        return Faults(Starlette(routes=routes, lifespan=self.lifespan), self.faults)

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

    async def get_info(self, _: Request) -> Response:
        tip = self.weave.tip
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

    async def get_height(self, _: Request) -> Response:
        return PlainTextResponse(str(self.weave.tip.height))

    async def get_anchor(self, _: Request) -> Response:
        return PlainTextResponse(encode_base64url(self.weave.anchor))

    async def get_price(self, request: Request) -> Response:
        target = _parse_address(request) if "address" in request.path_params else b""
        fee = str(self.weave.compute_price(_parse_integer(request, "size"), target))
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"fee": fee, "denomination": 1})
        return PlainTextResponse(fee)

    async def get_balance(self, request: Request) -> Response:
        return PlainTextResponse(str(self.weave.balances.get(_parse_address(request), 0)))

    async def get_last_transaction(self, request: Request) -> Response:
        return PlainTextResponse(encode_base64url(self.weave.last_confirmed.get(_parse_address(request), b"")))

    # --- transactions ---

    async def post_transaction(self, request: Request) -> Response:
        body = await _read_body(request, MAX_TX_BODY_BYTES)
        try:
            tx = arweave.decode_transaction_json(body, max_bytes=MAX_TX_BODY_BYTES, max_data_bytes=MAX_TX_BODY_BYTES)
        except MalformedInput as error:
            self.log("refused", reason=str(error))
            return PlainTextResponse("Invalid JSON.", 400)
        answer = self.weave.submit(tx, time.monotonic())
        codes = self.weave.failed.get(tx.id, ()) if answer.status == 400 else ()
        self.log("header", id=encode_base64url(tx.id), status=answer.status, text=answer.text, codes=codes)
        return PlainTextResponse(answer.text, answer.status)

    def _find(self, request: Request) -> Entry | Response:
        transaction_id = _parse_id(request)
        entry = self.weave.entries.get(transaction_id)
        if entry is not None:
            return entry
        codes = self.weave.failed.get(transaction_id)
        return PlainTextResponse(" ".join(codes), 410) if codes else PlainTextResponse("Not Found.", 404)

    async def get_transaction(self, request: Request) -> Response:
        entry = self._find(request)
        if isinstance(entry, Response):
            return entry
        if entry.height is None:
            return PlainTextResponse("Pending", 202)
        return JSONResponse(arweave.encode_transaction(entry.tx))

    async def get_unconfirmed(self, request: Request) -> Response:
        entry = self._find(request)
        return entry if isinstance(entry, Response) else JSONResponse(arweave.encode_transaction(entry.tx))

    async def get_pending(self, _: Request) -> Response:
        return JSONResponse([encode_base64url(entry.tx.id) for entry in self.weave.pending])

    async def get_status(self, request: Request) -> Response:
        entry = self.weave.entries.get(_parse_id(request))
        if entry is None:
            return PlainTextResponse("Not Found.", 404)
        if entry.height is None:
            return PlainTextResponse("Pending", 202)
        block = self.weave.block_times[entry.height]
        return JSONResponse(
            {
                "block_height": entry.height,
                "block_indep_hash": encode_base64url(block.hash),
                "number_of_confirmations": self.weave.tip.height - entry.height + 1,
            }
        )

    async def get_offset(self, request: Request) -> Response:
        entry = self.weave.entries.get(_parse_id(request))
        if entry is None or entry.height is None or not entry.tx.data_size:
            return PlainTextResponse("Not Found.", 404)
        size = entry.tx.data_size
        return JSONResponse({"offset": str(entry.weave_start + size), "size": str(size)})

    async def get_data(self, request: Request) -> Response:
        found = self.weave.find_readable(_parse_id(request))
        if found is None:
            return PlainTextResponse("Not Found.", 404)
        if found[1].size > MAX_JSON_DATA_BYTES:
            return PlainTextResponse("The data is too big, download it in chunks.", 400)
        return PlainTextResponse(encode_base64url(found[1].read(0, found[1].size)))

    # --- data ---

    async def post_chunk(self, request: Request) -> Response:
        body = await _read_body(request, MAX_CHUNK_BODY_BYTES)
        try:
            upload = arweave.decode_chunk(arweave.decode_json_object(body, "chunk", max_bytes=MAX_CHUNK_BODY_BYTES))
        except MalformedInput as error:
            self.log("chunk refused", error="invalid_json", reason=str(error))
            return JSONResponse({"error": "invalid_json"}, 400)
        error_code = self.weave.add_chunk(upload)
        if error_code is not None:
            self.log("chunk refused", error=error_code, offset=upload.offset)
            return JSONResponse({"error": error_code}, 400)
        return PlainTextResponse("OK")

    async def get_chunk(self, request: Request) -> Response:
        found = self.weave.find_at(_parse_integer(request, "position"))
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
        found = self.weave.find_readable(_parse_id(request))
        if found is None:
            return PlainTextResponse("Not Found.", 404)
        return FileResponse(found[1].path, media_type="application/octet-stream")

    async def get_content(self, request: Request) -> Response:
        found = self.weave.find_readable(_parse_id(request))
        if found is None:
            return PlainTextResponse("Not Found.", 404)
        types = [value.decode("latin-1") for name, value in found[0].tx.tags if name == b"Content-Type"]
        plain = types[0] if types and types[0].isprintable() and types[0].isascii() else "application/octet-stream"
        return FileResponse(found[1].path, media_type=plain)

    # --- GraphQL ---

    async def post_graphql(self, request: Request) -> Response:
        body = await _read_body(request, MAX_CONTROL_BODY_BYTES)
        try:
            call = arweave.decode_json_object(body, "query", max_bytes=MAX_CONTROL_BODY_BYTES)
            fields = graphql.parse(str(call.get("query", "")), call.get("variables") or {})
            data = {f.key: graphql.project(self._resolve(f), f.fields) for f in fields}
        except (MalformedInput, ValueError, TypeError, AttributeError, KeyError) as error:
            return JSONResponse({"data": None, "errors": [{"message": str(error)}]})
        return JSONResponse({"data": data})

    def _resolve(self, query: graphql.Field) -> Any:
        if query.name == "transaction":
            entry = self.weave.entries.get(arweave.decode_storage_id(query.arguments["id"]))
            return None if entry is None else self._describe(entry)
        if query.name == "transactions":
            return self._page(query.arguments)
        raise graphql.QueryError(f"no field {query.name}")

    def _page(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        entries = [entry for entry in self.weave.entries.values() if self._matches(entry, wanted)]
        ascending = wanted.get("sort") == "HEIGHT_ASC"
        entries.sort(key=lambda e: (e.height if e.height is not None else 1 << 62, e.sequence), reverse=not ascending)
        after = wanted.get("after")
        if after:
            cursors = [str(entry.sequence) for entry in entries]
            entries = entries[cursors.index(after) + 1 :] if after in cursors else []
        first = min(int(wanted.get("first") or 10), PAGE_TRANSACTIONS)
        return {
            "count": str(len(entries)),
            "pageInfo": {"hasNextPage": len(entries) > first},
            "edges": [{"cursor": str(e.sequence), "node": self._describe(e)} for e in entries[:first]],
        }

    def _matches(self, entry: Entry, wanted: Mapping[str, Any]) -> bool:
        tx = entry.tx
        ids, owners, recipients = wanted.get("ids"), wanted.get("owners"), wanted.get("recipients")
        if ids is not None and encode_base64url(tx.id) not in ids:
            return False
        if owners is not None and encode_base64url(tx.address) not in owners:
            return False
        if recipients is not None and encode_base64url(tx.target) not in recipients:
            return False
        if wanted.get("bundledIn"):
            return False
        block = wanted.get("block") or {}
        if block and (entry.height is None or not block.get("min", 0) <= entry.height <= block.get("max", 1 << 62)):
            return False
        tags = text_tags(tx)
        for rule in wanted.get("tags") or []:
            is_there = any(name == rule["name"] and value in rule["values"] for name, value in tags)
            if is_there is (rule.get("op") == "NEQ"):
                return False
        return True

    def _describe(self, entry: Entry) -> dict[str, Any]:
        tx = entry.tx
        types = [value for name, value in text_tags(tx) if name == "Content-Type"]
        block = self.weave.block_times[entry.height] if entry.height is not None else None
        return {
            "id": encode_base64url(tx.id),
            "anchor": encode_base64url(tx.last_tx),
            "signature": encode_base64url(tx.signature),
            "recipient": encode_base64url(tx.target),
            "owner": {"address": encode_base64url(tx.address), "key": encode_base64url(tx.owner)},
            "fee": {"winston": str(tx.reward)},
            "quantity": {"winston": str(tx.quantity)},
            "data": {"size": str(tx.data_size), "type": types[0] if types else None},
            "tags": [{"name": name, "value": value} for name, value in text_tags(tx)],
            "block": block
            and {"id": encode_base64url(block.hash), "height": block.height, "timestamp": block.timestamp_s},
            "bundledIn": None,
        }

    # --- controls ---

    async def mint(self, request: Request) -> Response:
        winston = _parse_integer(request, "winston")
        address = _parse_address(request)
        if winston > MAX_MINT_WINSTON or len(address) != arweave.ADDRESS_BYTES:
            raise HTTPException(400, "Invalid address or amount.")
        self.log("mint", address=encode_base64url(address), winston=str(winston))
        return PlainTextResponse(str(self.weave.mint(address, winston)))

    async def mine(self, request: Request) -> Response:
        for _ in range(min(_parse_integer(request, "blocks"), MAX_MINED_AT_ONCE)):
            self.mine_block()
        return PlainTextResponse(str(self.weave.tip.height))

    async def drop(self, request: Request) -> Response:
        entry = self._find(request)
        if isinstance(entry, Response) or entry.height is not None:
            return PlainTextResponse("Not pending.", 404)
        self.weave.drop(entry.tx.id, "dropped")
        return PlainTextResponse("OK")

    async def forget(self, request: Request) -> Response:
        entry = self._find(request)
        if isinstance(entry, Response) or not self.weave.forget_chunk(entry, _parse_integer(request, "offset")):
            return PlainTextResponse("No such chunk.", 404)
        return PlainTextResponse("OK")

    async def get_stats(self, _: Request) -> Response:
        return JSONResponse(self.weave.compute_stats())

    async def get_faults(self, _: Request) -> Response:
        return JSONResponse([asdict(rule) for rule in self.faults])

    async def add_fault(self, request: Request) -> Response:
        body = await _read_body(request, MAX_CONTROL_BODY_BYTES)
        try:
            self.faults.append(decode_fault(arweave.decode_json_object(body, "fault", max_bytes=len(body) + 1)))
        except MalformedInput as error:
            return PlainTextResponse(str(error), 400)
        return PlainTextResponse("OK")

    async def clear_faults(self, _: Request) -> Response:
        self.faults.clear()
        return PlainTextResponse("OK")


# --- process --------------------------------------------------------------------------------------


def open_log(path: Path | None) -> Callable[..., None]:
    """Function that writes one JSON line per event, or does nothing without a file."""
    if path is None:
        return lambda *_, **__: None
    file: IO[str] = path.open("a", buffering=1)

    def write(event: str, **fields: object) -> None:
        file.write(json.dumps({"time_ms": time.time_ns() // 1_000_000, "event": event, **fields}) + "\n")

    return write


class LogHandler(logging.Handler):
    """Sends what the server complains about to the log, since nothing else is printed."""

    def __init__(self, log: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log("server", level=record.levelname, message=self.format(record))


def write_port(path: Path, port: int) -> None:
    """Write the port in one step, so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(f"{port}\n")
    os.replace(partial, path)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="validator.devnet.gateway", description="Arweave gateway for development.")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port once it listens")
    parser.add_argument("--data", type=Path, required=True, help="folder for chunk data; made where it is missing")
    parser.add_argument("--mine-ms", type=int, default=500, help="time between blocks; 0: mine on request only")
    parser.add_argument("--log", type=Path, default=None, help="file for one JSON line per event")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: any free one")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT. Exit status 2 where a folder or the port can not be had."""
    options = parse_arguments(arguments)
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer takes 40 ms
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        options.data.mkdir(parents=True, exist_ok=True)
        log = open_log(options.log)
        listener.bind(("127.0.0.1", options.port))
        listener.listen(128)
        logging.getLogger("uvicorn").addHandler(LogHandler(log))
        gateway = Gateway(Weave(options.data), log, options.mine_ms)
        config = uvicorn.Config(
            gateway.build_app(),
            http=AbortableProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        write_port(options.port_file, listener.getsockname()[1])
    except OSError as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the server raises the signal again when it has ended
    sys.exit(main(sys.argv[1:]))
