"""What consumers and publishers send by HTTP: signed messages, late ones too, and receipts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from validator.broker.admission import PASSING, Fate, Judged
from validator.broker.core import Broker
from validator.broker.forms import FRAMES, NDJSON
from validator.broker.refusal import Refused, bad, read_body
from validator.protocol.codec.frames import take_frames
from validator.protocol.codec.protobuf import MAX_BODY_BYTES
from validator.protocol.codec.receipt import MAX_RECEIPT_BYTES, parse_receipt, verify_receipt
from validator.protocol.codec.received import ARRAY, CANONICAL, PROTOBUF
from validator.protocol.errors import MalformedInput
from validator.protocol.model import StreamPart

MAX_POST_BYTES = 16 << 20
MAX_POSTED = 5_000
_FORMS = {
    "application/octet-stream": PROTOBUF,
    "application/x-protobuf": PROTOBUF,
    FRAMES: CANONICAL,
    NDJSON: ARRAY,
    "application/json": ARRAY,
    "text/plain": ARRAY,
}


async def post_messages(broker: Broker, request: Request, part: StreamPart) -> Response:
    """Per message: stored, known, or refused with the reason, and whether it may be sent again."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    form = _FORMS.get(kind)
    if form is None:
        raise bad("content-type", f"one of {', '.join(_FORMS)}")
    body = await read_body(request, MAX_POST_BYTES)
    items = body.split(b"\n") if form == ARRAY else _split_frames(body)
    items = [item for item in items if item]
    if len(items) > MAX_POSTED:
        raise bad("body", f"more than {MAX_POSTED} messages")
    judged = await asyncio.to_thread(broker.admission.admit, [(part, item) for item in items], form, tell_known=True)
    counts = {fate.value: sum(answer.fate is fate for answer in judged) for fate in Fate}
    return JSONResponse({**counts, "messages": [_told(answer) for answer in judged]})


def _told(answer: Judged) -> dict[str, Any]:
    told: dict[str, Any] = {"fate": answer.fate.value}
    if answer.leaf is not None:
        told["leaf"] = answer.leaf.hex()
    if answer.why is not None:
        told |= {"reason": answer.why.value, "detail": answer.detail[:300], "again": answer.why in PASSING}
    return told


def _split_frames(body: bytes) -> list[bytes]:
    """Raises Refused (400)."""
    items: list[bytes] = []
    rest = bytearray(body)
    with suppress(MalformedInput):
        for item in take_frames(rest, MAX_BODY_BYTES):
            items.append(item)
    if rest:
        raise bad("body", f"frame {len(items)} is cut short or too long")
    return items


async def post_receipt(broker: Broker, request: Request) -> Response:
    """Keep a receipt that grows, and publish it on the system stream at once."""
    content = await read_body(request, MAX_RECEIPT_BYTES)
    receipt = parse_receipt(content, broker.address)
    if receipt is None:
        raise Refused(400, "not a receipt", field="body")
    network = broker.network
    if not verify_receipt(receipt, network.chain_id, network.contracts.query_manager):
        raise Refused(400, "signature: not the consumer's over this broker's address", field="signature")
    told = {"cumulativeBytes": str(receipt.cumulative_bytes), "epoch": str(receipt.epoch)}
    if not await asyncio.to_thread(broker.accounts.credit, receipt):
        return JSONResponse({"kept": False, **told})
    sent = await broker.publish_on_system_stream(content)
    return JSONResponse({"kept": True, "published": sent, **told})
