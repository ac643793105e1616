"""What a request to ``/v1`` asks for: path, span, cursor, form; every fault names its field."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from starlette.requests import Request as HttpRequest

from validator.broker.chain_view import ChainView
from validator.broker.forms import EVENTS, NAMES, NDJSON
from validator.broker.query import Proof, Query
from validator.broker.refusal import Refused, bad, busy
from validator.protocol.codec.answer import MAX_CURSOR_BYTES, Request, decode_cursor, read_text
from validator.protocol.codec.limits import MAX_ID_BYTES, MAX_TIMESTAMP_MS
from validator.protocol.errors import MalformedInput
from validator.protocol.model import StreamPart

MAX_DIGITS = 16
FOREVER_MS = MAX_TIMESTAMP_MS + 1
"""``to`` where it is left out: the same span with every page, whatever the clock says."""


@dataclass(frozen=True, slots=True)
class Place:
    """Path below ``/v1/streams``: stream partition, and what of it."""

    part: StreamPart
    what: str


def read_place(words: list[bytes]) -> Place:
    """``words`` of the raw path behind ``/v1/streams``: id, "partitions", number, what. Raises Refused (404, 400)."""
    if len(words) != 4 or words[1] != b"partitions":
        raise Refused(404, "no such path")
    try:
        stream_id = unquote_to_bytes(words[0]).decode()
    except UnicodeDecodeError:
        raise bad("stream", "not UTF-8") from None
    if not 0 < len(stream_id.encode()) <= MAX_ID_BYTES:
        raise bad("stream", f"not 1 to {MAX_ID_BYTES} bytes")
    if not (words[2].isdigit() and len(words[2]) <= 4):
        raise bad("partition", "not a number")
    return Place((stream_id, int(words[2])), words[3].decode("ascii", "replace"))


def require_registered(chain: ChainView, part: StreamPart) -> None:
    """Raises Refused: 404 that says whether stream or partition is unknown; 503 before the chain was read."""
    partitions = chain.partitions_of(part[0])
    if part[1] < partitions:
        return
    if chain.block is None:
        raise busy("the chain was not read yet")
    if partitions:
        raise Refused(404, f"partition: the stream has {partitions}", field="partition")
    raise Refused(404, "stream: not registered", field="stream")


def read_number(request: HttpRequest, name: str, default: int | None, *, most: int = FOREVER_MS) -> int:
    """Raises Refused (400)."""
    text = request.query_params.get(name)
    if text is None:
        if default is None:
            raise bad(name, "required")
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS) or int(text) > most:
        raise bad(name, f"not a number of 0 to {most}")
    return int(text)


def read_span(request: HttpRequest, part: StreamPart) -> Request:
    """``from`` and ``to``, Unix ms, half-open. Raises Refused (400)."""
    from_ms = read_number(request, "from", None)
    until_ms = read_number(request, "to", FOREVER_MS)
    if until_ms <= from_ms:
        raise bad("to", "not after from")
    return Request(*part, from_ms, until_ms)


def read_query(request: HttpRequest, part: StreamPart) -> Query:
    """Raises Refused (400)."""
    span = read_span(request, part)
    limit = read_number(request, "limit", 0)
    named = "asOf" in request.query_params and not wants_no_history(request)
    as_of = read_number(request, "asOf", None) if named else None
    proof = read_proof(request)
    text = request.query_params.get("cursor")
    if text is None and EVENTS in request.headers.get("accept", ""):
        text = request.headers.get("last-event-id")
    if not text:
        return Query(span, None, as_of, limit, proof)
    try:
        cursor = decode_cursor(read_text(text, "cursor", max_bytes=MAX_CURSOR_BYTES), span)
    except MalformedInput as error:
        raise Refused(400, error.message, field="cursor") from error
    if as_of is not None and as_of != cursor.as_of:
        raise bad("asOf", "not the cursor's")
    return Query(span, cursor, cursor.as_of, limit, proof)


def wants_no_history(request: HttpRequest) -> bool:
    """``asOf=none``: what this broker holds, as it holds it. Validators pull so: neither bundles, gateways nor other
    brokers are in their way; they ask every broker themselves."""
    return request.query_params.get("asOf") == "none"


def read_proof(request: HttpRequest) -> Proof:
    """Raises Refused (400)."""
    try:
        return Proof(request.query_params.get("proof", Proof.NONE))
    except ValueError:
        raise bad("proof", f"one of {', '.join(Proof)}") from None


def read_form(request: HttpRequest) -> str:
    """The media type of the answer: ``format`` by name, else the first of Accept that we speak. Raises Refused."""
    name = request.query_params.get("format")
    if name is not None:
        if name not in NAMES:
            raise bad("format", f"one of {', '.join(NAMES)}")
        return NAMES[name]
    accepted = [item.partition(";")[0].strip().lower() for item in request.headers.get("accept", "*/*").split(",")]
    for kind in accepted:
        if kind in NAMES.values():
            return kind
        if kind in ("*/*", "application/*", "application/json"):
            return NDJSON
    raise bad("accept", f"none of {', '.join(NAMES.values())}")
