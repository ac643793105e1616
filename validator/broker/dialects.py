"""The paths of the brokers before us, for the clients of today, each as its generation spoke it.

| Dialect | Path | Login | Raw messages | No message |
|---|---|---|---|---|
| 2023 | /streams | password 0x hex | lines of arrays, metadata as last line | an empty line, metadata |
| 2024-01 | /stores | 0x hex | the same | the same |
| 2024-04 | /stores | base64 | frames of protobuf | no type, no body |
| streamr | /streams | none | frames of protobuf | no type, no body |

Path, and below it the form of the password, say which one a client speaks. A range of arrays carries an entity tag,
which the old brokers did not. Lines end with what follows, after ``PAGE_ROWS`` messages or so many bytes; frames
cannot say that anything follows, so they are given to the last one, page by page. What arrays cannot carry
(protobuf's binary contents, newer signatures) is left out there, as their brokers never had it.

Sources: reference of the Log Store broker layer, HTTP API; reference of Streamr, storage node HTTP API.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from validator.broker.core import Broker
from validator.broker.old_forms import flat_object, nested_object
from validator.broker.reaching import read_last, read_page
from validator.broker.refusal import Refused
from validator.ports.message_store import NO_ROWS, Columns, SortKey
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.limits import MAX_SEQUENCE, MAX_TIMESTAMP_MS
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.quick_reader import read_quickly
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, Message, StreamPart

PAGE_ROWS = 5_000
PAGE_BYTES = 16 << 20
MAX_LAST = 10_000
SCAN_ROWS = 1_024
MAX_DIGITS = 16


class Era(StrEnum):
    """A generation of brokers."""

    APRIL_2024 = "2024-04"
    JANUARY_2024 = "2024-01"
    YEAR_2023 = "2023"
    STREAMR = "streamr"

    @property
    def speaks_arrays(self) -> bool:
        return self in (Era.YEAR_2023, Era.JANUARY_2024)


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends inclusive; a publisher, or a publisher and a chain, where asked for."""

    from_ms: int
    to_ms: int
    from_sequence: int = 0
    to_sequence: int = MAX_SEQUENCE
    publisher_id: bytes | None = None
    msg_chain_id: str | None = None


@dataclass(slots=True)
class _Page:
    """Messages of one answer that arrays can carry, and where the next one would begin."""

    items: list[tuple[Message, bytes]]
    following: Message | None = None


class Dialects:
    """Answers ``/streams`` and ``/stores``."""

    def __init__(self, broker: Broker, eras: frozenset[Era] = frozenset(Era), *, page_rows: int = PAGE_ROWS) -> None:
        self._broker = broker
        self._eras = eras
        self._page_rows = page_rows

    async def answer(self, request: Request, words: list[bytes]) -> Response:
        """``words``: of the raw path. Raises Refused."""
        if request.method != "GET" or words[0] not in (b"streams", b"stores"):
            raise Refused(404, "no such path")
        if len(words) == 5 and words[0] == b"streams" and words[2:4] == [b"storage", b"partitions"]:
            return self._is_stored(words)
        if len(words) == 5 and words[0] == b"stores" and words[2] == b"partitions" and words[4] == b"ready":
            return self._is_ready(words)
        era = self._era(words[0], request.headers.get("authorization"))
        stream_id, partition_text, kind = _split_path(words)
        if era is not Era.STREAMR:
            gate = self._broker.gate
            header = request.headers.get("authorization")
            consumer = gate.consumer_of_basic(header, hex_password=era is not Era.APRIL_2024)
            await self._broker.read(lambda: gate.check_balance(consumer, status=400))
        if not (partition_text.isascii() and partition_text.isdecimal() and len(partition_text) <= 4):
            raise Refused(400, f'Path parameter "partition" not a number: {partition_text[:40]}')
        form = _format(request, era)
        return await self._answer(request, (stream_id, int(partition_text)), kind, era, form)

    def _era(self, prefix: bytes, header: str | None) -> Era:
        """Raises Refused: 404 for a path that is not spoken here; 401 where a login is needed."""
        if prefix == b"streams":
            if header is None and Era.STREAMR in self._eras and self._broker.gate.terms.streamr:
                return Era.STREAMR
            wanted = [Era.YEAR_2023]
        else:
            wanted = [Era.JANUARY_2024, Era.APRIL_2024] if _has_hex_password(header) else [Era.APRIL_2024]
            if Era.APRIL_2024 not in self._eras:
                wanted = [Era.JANUARY_2024]
        for era in wanted:
            if era in self._eras:
                return era
        raise Refused(404, "no such path")

    def _is_stored(self, words: list[bytes]) -> Response:
        """Streamr's question whether a node stores a partition: 200 or 404."""
        found = self._has_part(words[1], words[4])
        if found is None:
            return Response(f"Path parameter partition not a number: {words[4][:40]!r}", 400)
        return Response(b"{}" if found else b"", 200 if found else 404, media_type="application/json")

    def _is_ready(self, words: list[bytes]) -> Response:
        """What clients of the later node ask, without a login, before they publish: whether anybody would hear it."""
        found = self._has_part(words[1], words[3])
        if found is None:
            raise Refused(400, f'Path parameter "partition" not a number: {words[3][:40].decode("ascii", "replace")}')
        return Response(msgspec.json.encode({"ready": found}), media_type="application/json")

    def _has_part(self, stream: bytes, partition: bytes) -> bool | None:
        """Whether it is registered; None for what is no number, or no text."""
        try:
            stream_id, number = unquote_to_bytes(stream).decode(), int(partition.decode())
        except (UnicodeDecodeError, ValueError):
            return None
        return 0 <= number < self._broker.chain.partitions_of(stream_id)

    async def _answer(self, request: Request, part: StreamPart, kind: str, era: Era, form: str) -> Response:
        if kind == "last":
            count = min(_number(request, "count", 1), MAX_LAST)
            page = await self._broker.read(read_last, self._broker, part, count) if count else NO_ROWS
            return await self._broker.read(self._of_last, page, era, form)
        wanted = _from(request) if kind == "from" else _range(request)
        if form == "raw" and not era.speaks_arrays:
            return await self._frames(part, wanted)
        tag = None
        if kind == "range" and era.speaks_arrays:
            state = await self._broker.read(self._broker.store.state, part, wanted.from_ms, wanted.to_ms + 1)
            tag = f'"{self._broker.boot}-{state.count}-{state.newest_arrival_ms}"'
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers={"etag": tag})
        found = await self._broker.read(self._page, part, wanted, era)
        return await self._broker.read(_body, found, era, form, {"etag": tag} if tag else {})

    # --- on a reader's thread

    def _of_last(self, page: Columns, era: Era, form: str) -> Response:
        messages = _messages(page)
        if form == "raw" and not era.speaks_arrays:
            return _whole_frames(_frames_of(messages))
        items = [item for message in messages if (item := _readable(message, era)) is not None]
        return _body(_Page(items), era, form, {})

    def _page(self, part: StreamPart, wanted: Range, era: Era) -> _Page:
        items: list[tuple[Message, bytes]] = []
        size = 0
        for messages in self._read(part, wanted):
            for message in messages:
                item = _readable(message, era)
                if item is None:
                    continue
                if len(items) >= self._page_rows or size > PAGE_BYTES:
                    return _Page(items, message)
                items.append(item)
                size += len(item[1])
        return _Page(items)

    def _read(self, part: StreamPart, wanted: Range) -> Iterator[list[Message]]:
        """Pages of the range, filtered."""
        until_ms = min(wanted.to_ms, MAX_TIMESTAMP_MS) + 1
        after: SortKey | None = SortKey(wanted.from_ms, wanted.from_sequence, b"", "", Digest(b""))
        while page := read_page(self._broker, part, wanted.from_ms, until_ms, after=after, limit=SCAN_ROWS):
            after = page.last_key
            yield [message for message in _messages(page) if _matches(message, wanted)]

    async def _frames(self, part: StreamPart, wanted: Range) -> Response:
        """All of the range as frames; with nothing to say it has neither type nor body."""
        pages = (_frames_of(messages) for messages in self._read(part, wanted))
        first = await self._broker.read(_next, pages)
        if first is None:
            return Response()

        async def pieces() -> AsyncIterator[bytes]:
            piece: bytes | None = first
            while piece is not None:
                yield piece
                piece = await self._broker.read(_next, pages)

        return StreamingResponse(pieces(), media_type="application/octet-stream")


def _next(pages: Iterator[bytes]) -> bytes | None:
    """The next that holds anything."""
    return next((page for page in pages if page), None)


def _messages(page: Columns) -> list[Message]:
    """The store's messages were checked before they were stored."""
    return [read_quickly(canonical) or decode_message(canonical) for canonical in page.messages()]


def _frames_of(messages: Sequence[Message]) -> bytes:
    return b"".join([write_frame(write_protobuf(message)) for message in messages])


def _readable(message: Message, era: Era) -> tuple[Message, bytes] | None:
    """The message and its line, which arrays have not for everything; other eras need no line."""
    if not era.speaks_arrays:
        return message, b""
    try:
        return message, write_legacy_array(message)
    except MalformedInput:
        return None


def _matches(message: Message, wanted: Range) -> bool:
    if message.timestamp_ms == wanted.to_ms and message.sequence_number > wanted.to_sequence:
        return False
    if wanted.publisher_id is not None and message.publisher_id != wanted.publisher_id:
        return False
    return wanted.msg_chain_id is None or message.msg_chain_id == wanted.msg_chain_id


# --- bodies -----------------------------------------------------------------------------------------


def _whole_frames(body: bytes) -> Response:
    return Response(body, media_type="application/octet-stream") if body else Response()


def _body(page: _Page, era: Era, form: str, headers: dict[str, str]) -> Response:
    metadata: dict[str, Any] = {"hasNext": page.following is not None}
    if page.following is not None:
        metadata |= {
            "nextTimestamp": page.following.timestamp_ms,
            "nextSequenceNumber": page.following.sequence_number,
        }
    metadata |= {"totalMessages": len(page.items), "type": "metadata"}
    if form == "raw":
        body = b"\n".join([line for _, line in page.items]) + b"\n" + msgspec.json.encode(metadata)
        return Response(body, media_type="text/plain", headers=headers)
    messages: list[Any]
    if form == "protocol":
        messages = [line.decode() for _, line in page.items]
    elif era.speaks_arrays:
        messages = [nested_object(line) for _, line in page.items]
    else:
        messages = [flat_object(message) for message, _ in page.items]
    whole = messages if era is Era.STREAMR else {"messages": messages, "metadata": metadata}
    return Response(msgspec.json.encode(whole), media_type="application/json", headers=headers)


# --- what is asked for --------------------------------------------------------------------------------


def _has_hex_password(header: str | None) -> bool:
    if header is None or not header.startswith("Basic "):
        return False
    try:
        return base64.b64decode(header[6:], validate=True).partition(b":")[2].startswith(b"0x")
    except ValueError:
        return False


def _split_path(words: list[bytes]) -> tuple[str, str, str]:
    """(stream id, partition, last or from or range); the stream id must come percent-encoded."""
    if len(words) != 6 or words[2:4] != [b"data", b"partitions"]:
        raise Refused(404, "no such path")
    if words[5] not in (b"last", b"from", b"range"):
        raise Refused(400, "Unknown query type")
    try:
        return unquote_to_bytes(words[1]).decode(), unquote_to_bytes(words[4]).decode(), words[5].decode()
    except UnicodeDecodeError:
        raise Refused(400, "the path is not UTF-8") from None


def _format(request: Request, era: Era) -> str:
    wanted = request.query_params.get("format", "object")
    if wanted in ("raw", "object") or (wanted == "protocol" and era.speaks_arrays):
        return wanted
    if era.speaks_arrays:
        return "object"
    raise Refused(400, f'Query parameter "format" is invalid: {wanted[:40]}')


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise Refused(400, f'Query parameter "{name}" not a number: {text[:40]}', field=name)
    return int(text)


def _required(request: Request, name: str) -> int:
    if name not in request.query_params:
        raise Refused(400, f'Query parameter "{name}" required.', field=name)
    return _number(request, name, 0)


def _from(request: Request) -> Range:
    return Range(
        _required(request, "fromTimestamp"),
        MAX_TIMESTAMP_MS,
        from_sequence=_number(request, "fromSequenceNumber", 0),
        publisher_id=_publisher(request),
    )


def _range(request: Request) -> Range:
    start = _required(request, "fromTimestamp")
    if "toTimestamp" not in request.query_params:
        raise Refused(400, 'Query parameter "toTimestamp" required as well.', field="toTimestamp")
    publisher, chain = _publisher(request), request.query_params.get("msgChainId")
    if (publisher is None) is not (chain is None):
        raise Refused(400, 'Invalid combination of "publisherId" and "msgChainId"')
    return Range(
        start,
        _number(request, "toTimestamp", 0),
        from_sequence=_number(request, "fromSequenceNumber", 0),
        to_sequence=_number(request, "toSequenceNumber", MAX_SEQUENCE) or MAX_SEQUENCE,
        publisher_id=publisher,
        msg_chain_id=chain,
    )


def _publisher(request: Request) -> bytes | None:
    text = request.query_params.get("publisherId")
    if text is None:
        return None
    try:
        return bytes.fromhex(text.lower().removeprefix("0x"))
    except ValueError:
        raise Refused(400, f'Query parameter "publisherId" not valid: {text[:40]}', field="publisherId") from None
