"""A broker as they were before ours, for the client that must read them all: caches messages, answers queries.

``python -m tests.fakes.old_broker --config FILE.json`` serves on 127.0.0.1:

    POST /ingest     lines of JSON arrays, or frames of protobuf, as the network delivers them; each delivery is logged
    GET  /streams/{id}/data/partitions/{n}/{last|from|range}, or the same below /stores
    POST /receipts   a receipt's JSON text; kept if it grows, published on the system stream at once

It checks no signature and keeps every distinct record, also several with one message id. Path, login, errors and
formats are those of one generation of brokers (``eras``; reference: Log Store broker layer, HTTP API). A range of
arrays carries an ``ETag``, which the real ones do not; one of frames does not, and is cut where it holds more than one
answer may, as the real one is.

Files, JSON lines: ``delivery_log`` {"time_ms", "sha256", "form", "line"} per delivered message, written once it can be
queried; ``published_log`` {"time_ms", "kind": "receipt", "stream", "partition", "form", "line"} per form of a message
of its own. ``form`` and ``line`` are those of ``publisher``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.message_cache import MAX_SEQUENCE, MessageCache, Range, Stored, tag_of
from validator.broker.old_forms import flat_object, nested_object
from validator.devnet.eras import Era
from validator.devnet.network import log_form, log_forms, parcel_of_line
from validator.devnet.process import LineLog, listen, now_ms, read_address, read_config, read_key, run, serve
from validator.devnet.publisher import MessageChain, personal_digest
from validator.net.brokers.pages import read_frames
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.receipt import MAX_RECEIPT_BYTES, parse_receipt
from validator.protocol.codec.received import ARRAY, PROTOBUF
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address

MAX_INGEST_BYTES = 64 << 20
MAX_LOGINS = 1000
MAX_NUMBER_DIGITS = 16
_FORMATS = {ARRAY: ("raw", "protocol", "object"), PROTOBUF: ("raw", "object")}
BALANCE_STALE_S = 60.0
"""While the node does not answer, what it said last counts this long."""


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The broker's config file. Addresses and key are 0x hex.

    ``network_port_file`` holds the port of the network's process once that runs. Without ``rpc_url`` nobody's balance
    is asked for. ``page_limit`` is how many messages one answer has at most.
    """

    key: str
    port_file: Path
    delivery_log: Path
    published_log: Path
    system_stream: str
    query_manager: str
    network_port_file: Path | None = None
    rpc_url: str | None = None
    era: Era = Era.YEAR_2023
    balance_cache_s: float = 5.0
    page_limit: int = 5000
    port: int = 0


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


@dataclass(slots=True)
class _Balance:
    positive: bool
    read_s: float


@dataclass(slots=True)
class Balances:
    """Who has a balance in QueryManager, by eth_call, remembered for some seconds."""

    rpc_url: str
    query_manager: Address
    cache_s: float
    client: httpx.AsyncClient
    known: dict[Address, _Balance] = field(default_factory=dict)
    reading: dict[Address, asyncio.Lock] = field(default_factory=dict)

    async def is_positive(self, consumer: Address) -> bool:
        """Raises Refusal (500) if the node does not answer and nothing is known."""
        async with self.reading.setdefault(consumer, asyncio.Lock()):
            known = self.known.get(consumer)
            now = time.monotonic()
            if known is not None and now - known.read_s < self.cache_s:
                return known.positive
            try:
                positive = await self._fetch(consumer) > 0
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                if known is not None and now - known.read_s < BALANCE_STALE_S:
                    return known.positive
                raise Refusal(500, "Failed to read the balance") from error
            self.known[consumer] = _Balance(positive, now)
            return positive

    async def _fetch(self, consumer: Address) -> int:
        """``balanceOf(address)`` at the newest block."""
        call = {"to": "0x" + self.query_manager.hex(), "data": "0x70a08231" + consumer.rjust(32, b"\0").hex()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}
        answer = await self.client.post(self.rpc_url, json=body)
        return int(answer.json()["result"], 16)


class Broker:
    """The broker without its sockets: what ``build_app`` serves."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.key = read_key(config.key, "key")
        self.query_manager = read_address(config.query_manager, "query_manager")
        self.era = config.era
        self.cache = MessageCache(self.era.form)
        self.boot = secrets.token_hex(4)
        self.deliveries = LineLog(config.delivery_log)
        self.published = LineLog(config.published_log)
        self.receipts: dict[Address, tuple[int, int]] = {}  # epoch and cumulative bytes
        self.chain = MessageChain(self.key, config.system_stream, 0, secrets.token_hex(10))
        self.publishing = asyncio.Lock()
        self.client = httpx.AsyncClient(timeout=5.0, trust_env=False)
        self.balances = (
            Balances(config.rpc_url, self.query_manager, config.balance_cache_s, self.client)
            if config.rpc_url
            else None
        )
        self.logins: dict[str, Address] = {}

    # --- what comes in

    def ingest(self, body: bytes) -> dict[str, int]:
        """Keep the messages and log their delivery; answers how many were new and how many could not be placed.

        Raises:
            MalformedInput: frames that are none.
        """
        new = refused = 0
        log = []
        form = self.era.form
        records = _split(body, form)
        for record in records:
            try:
                told = log_form(form, record)
                digest, is_new = self.cache.add(record)
            except (MalformedInput, UnicodeDecodeError):
                refused += 1
                continue
            new += is_new
            log.append({"sha256": digest.hex(), **told})
        time_ms = now_ms()
        self.deliveries.write_all({"time_ms": time_ms, **entry} for entry in log)
        return {"received": len(records), "new": new, "refused": refused}

    async def take_receipt(self, content: bytes) -> dict[str, Any]:
        """Keep and publish a receipt whose cumulative bytes grow. Raises Refusal (400) for another form."""
        receipt = parse_receipt(content, self.key.address)
        if receipt is None:
            raise Refusal(400, "not a receipt")
        async with self.publishing:
            kept = self.receipts.get(receipt.consumer, (0, 0))
            if (receipt.epoch, receipt.cumulative_bytes) <= kept:
                return {"kept": False, "cumulativeBytes": str(kept[1])}
            self.receipts[receipt.consumer] = (receipt.epoch, receipt.cumulative_bytes)
            line = self.chain.sign(now_ms(), content)
            told = {"time_ms": now_ms(), "kind": "receipt", "stream": self.config.system_stream, "partition": 0}
            self.published.write_all({**told, **form} for form in log_forms(parcel_of_line(line)))
            sent = await self._publish(line)
        return {"kept": True, "published": sent, "cumulativeBytes": str(receipt.cumulative_bytes)}

    async def _publish(self, line: bytes) -> bool:
        """Hand a line to the network; a network that is away has lost it, as networks do."""
        if self.config.network_port_file is None:
            return False
        for pause_s in (0.1, 0.3, 0.0):
            try:
                port = int(await asyncio.to_thread(self.config.network_port_file.read_text))
                answer = await self.client.post(f"http://127.0.0.1:{port}/publish", content=line)
                if answer.status_code == 200:
                    return True
            except (OSError, ValueError, httpx.HTTPError):
                await asyncio.sleep(pause_s)
        return False

    # --- who may ask

    def login(self, header: str | None) -> Address:
        """Address of a Basic login: user = lower-case address, password = EIP-191 signature over it, in the era's form.

        Raises:
            Refusal: 401 without a Basic header, 403 for another signer, 500 for what is no signature in that form: the
                real brokers hand it to a library that throws.
        """
        if header is None or not header.startswith("Basic "):
            raise Refusal(401, "Authentication required")
        known = self.logins.get(header)
        if known is not None:
            return known
        try:
            user, _, password = base64.b64decode(header[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise Refusal(403, "Authentication failed") from None
        if not password:
            raise Refusal(403, "Authentication failed")
        try:
            signer = recover_address(personal_digest(user.encode()), self._signature(password))
        except (binascii.Error, ValueError, MalformedInput):
            raise Refusal(500, "signature missing v and recoveryParam") from None
        if "0x" + signer.hex() != user:
            raise Refusal(403, "Authentication failed")
        if len(self.logins) >= MAX_LOGINS:
            self.logins.clear()
        self.logins[header] = signer
        return signer

    def _signature(self, password: str) -> bytes:
        """Raises ValueError (binascii.Error is one)."""
        if not self.era.dialect.hex_password:
            return base64.b64decode(password, validate=True)
        if not password.startswith("0x"):
            raise ValueError("no hex")
        return bytes.fromhex(password[2:])

    # --- what goes out

    async def query(self, request: Request) -> Response:
        """Answer one query path; anything else is 404."""
        stream_id, partition_text, kind = _split_path(request, self.era.dialect.prefix)
        consumer = self.login(request.headers.get("authorization"))
        if self.balances is not None and not await self.balances.is_positive(consumer):
            raise Refusal(400, "Not enough balance")
        if not (partition_text.isascii() and partition_text.isdecimal() and len(partition_text) <= 4):
            raise Refusal(400, f'Path parameter "partition" not a number: {partition_text[:40]}')
        part = (stream_id, int(partition_text))
        wanted_format = request.query_params.get("format", "object")
        if wanted_format not in _FORMATS[self.era.form]:
            if self.era is Era.APRIL_2024:
                raise Refusal(400, f'Query parameter "format" is invalid: {wanted_format[:40]}')
            wanted_format = "object"
        if kind == "last":
            count = _number(request, "count", 1)
            return self._answer(self.cache.last(part, min(count, self.config.page_limit)), wanted_format, {})
        if kind == "from":
            wanted = Range(
                _required(request, "fromTimestamp"),
                2**53,
                from_sequence=_number(request, "fromSequenceNumber", 0),
                publisher_id=_lower(request.query_params.get("publisherId")),
            )
            return self._answer(self.cache.select(part, wanted), wanted_format, {})
        records = self.cache.select(part, _range(request))
        if self.era.form == PROTOBUF:
            return self._answer(records, wanted_format, {})
        tag = tag_of(self.boot, records)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return self._answer(records, wanted_format, {"etag": tag})

    def _answer(self, records: Sequence[Stored], wanted_format: str, headers: dict[str, str]) -> Response:
        page = records[: self.config.page_limit]
        if wanted_format == "raw" and self.era.form == PROTOBUF:
            return _frames([record[5] for record in page], cut=len(records) > len(page))
        metadata: dict[str, Any] = {"hasNext": len(records) > len(page)}
        if metadata["hasNext"]:
            following = records[len(page)]
            metadata["nextTimestamp"] = following[0]
            metadata["nextSequenceNumber"] = following[1]
        metadata |= {"totalMessages": len(page), "type": "metadata"}
        if wanted_format == "raw":
            body = b"\n".join(record[5] for record in page) + b"\n" + msgspec.json.encode(metadata)
            return Response(body, media_type="text/plain", headers=headers)
        messages: list[Any]
        if wanted_format == "protocol":
            messages = [record[5].decode() for record in page]
        else:
            make_object = _object if self.era.form == ARRAY else _flat_object
            messages = [make_object(record[5]) for record in page]
        body = msgspec.json.encode({"messages": messages, "metadata": metadata})
        return Response(body, media_type="application/json", headers=headers)

    def build_app(self) -> Starlette:
        async def ingest(request: Request) -> Response:
            try:
                return JSONResponse(self.ingest(await _body(request, MAX_INGEST_BYTES)))
            except MalformedInput as error:
                raise Refusal(400, error.message) from error

        async def receipts(request: Request) -> Response:
            return JSONResponse(await self.take_receipt(await _body(request, MAX_RECEIPT_BYTES)))

        async def health(_request: Request) -> Response:
            return JSONResponse({"messages": self.cache.count(), "receipts": len(self.receipts)})

        async def refuse(_request: Request, error: Exception) -> Response:
            assert isinstance(error, Refusal)
            headers = {"www-authenticate": "Basic"} if error.status == 401 else None
            return JSONResponse({"error": error.error}, error.status, headers)

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            yield
            await self.client.aclose()
            self.deliveries.close()
            self.published.close()

        return Starlette(
            routes=[
                Route("/ingest", ingest, methods=["POST"]),
                Route("/receipts", receipts, methods=["POST"]),
                Route("/health", health),
                Route("/{rest:path}", self.query),
            ],
            exception_handlers={Refusal: refuse},
            lifespan=lifespan,
        )


async def _body(request: Request, limit: int) -> bytes:
    pieces = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise Refusal(413, f"more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _split(body: bytes, form: str) -> list[bytes]:
    """The messages of a delivery. Raises MalformedInput for frames that are none."""
    if form == ARRAY:
        return [line for line in body.split(b"\n") if line]
    records: list[bytes] = []
    read_frames([body], lambda bodies, _form: records.extend(bodies))
    return records


class _Cut(Exception):
    """Ends an answer in its middle."""


def _frames(bodies: Sequence[bytes], *, cut: bool) -> Response:
    """Raw answer of the newest brokers; with nothing to say it has neither type nor body."""
    if not bodies:
        return Response()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"".join(map(write_frame, bodies))
        if cut:
            raise _Cut(f"more than {len(bodies)} messages")

    return StreamingResponse(pieces(), media_type="application/octet-stream")


def _split_path(request: Request, prefix: str) -> tuple[str, str, str]:
    """(stream id, partition, last or from or range); the stream id must come percent-encoded."""
    words = request.scope["raw_path"].split(b"?")[0].split(b"/")
    if len(words) != 7 or words[0] or words[1] != prefix.encode() or words[3:5] != [b"data", b"partitions"]:
        raise Refusal(404, "no such path")
    if words[6] not in (b"last", b"from", b"range"):
        raise Refusal(400, "Unknown query type")
    try:
        return unquote_to_bytes(words[2]).decode(), unquote_to_bytes(words[5]).decode(), words[6].decode()
    except UnicodeDecodeError:
        raise Refusal(400, "the path is not UTF-8") from None


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_NUMBER_DIGITS):
        raise Refusal(400, f'Query parameter "{name}" not a number: {text[:40]}')
    return int(text)


def _required(request: Request, name: str) -> int:
    if name not in request.query_params:
        raise Refusal(400, f'Query parameter "{name}" required.')
    return _number(request, name, 0)


def _range(request: Request) -> Range:
    start = _required(request, "fromTimestamp")
    if "toTimestamp" not in request.query_params:
        raise Refusal(400, 'Query parameter "toTimestamp" required as well.')
    publisher = _lower(request.query_params.get("publisherId"))
    chain = request.query_params.get("msgChainId")
    if (publisher is None) is not (chain is None):
        raise Refusal(400, 'Invalid combination of "publisherId" and "msgChainId"')
    return Range(
        start,
        _number(request, "toTimestamp", 0),
        from_sequence=_number(request, "fromSequenceNumber", 0),
        to_sequence=_number(request, "toSequenceNumber", MAX_SEQUENCE) or MAX_SEQUENCE,
        publisher_id=publisher,
        msg_chain_id=chain,
    )


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _object(line: bytes) -> Any:
    """The old broker's object form; a line that has not the array's shape is given as it is."""
    array = msgspec.json.decode(line)
    if not isinstance(array, list) or len(array) < 11 or array[0] != 32:
        return array
    return nested_object(line)


def _flat_object(body: bytes) -> Any:
    """The newest brokers' object form."""
    return flat_object(read_protobuf(body))


def main(config_file: Path) -> None:
    """Serve until SIGTERM. Raises ConfigError before the first connection."""
    config = read_config(Config, config_file)
    serve(Broker(config).build_app(), listen(config.port), config.port_file)


if __name__ == "__main__":
    sys.exit(run("broker", main, sys.argv[1:]))
