"""Bundles and proofs of messages over HTTP, for the public listener.

    GET /v1/bundles/{n}
        a verified bundle. application/cbor: the manifest's canonical bytes, with what the contract holds in headers;
        application/json: all of it, the manifest in base64url
    GET /v1/proofs/{leaf}?stream&partition&timestamp[&asOf]
        the message of this leaf hash (hex) with its proof up to the contract's root: the file that ``logstore verify``
        reads (``codec.stored_message``)

What is verified never changes, so both may be kept by whoever asks. A message that no bundle holds yet is 404, and a
bundle that nobody gives now 503: neither is ever an empty answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from validator.broker.certified import CertifiedBundles, OpenedBundle
from validator.broker.history import History
from validator.ports.certified import NotVerifiedYet
from validator.protocol.codec.arweave_text import encode_base64url, encode_storage_id
from validator.protocol.codec.manifest import encode_manifest
from validator.protocol.codec.stored_message import encode_stored
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Digest, StreamPart

CBOR = "application/cbor"
KEPT = {"cache-control": "public, max-age=86400, immutable"}
MAX_NUMBER = 1 << 63


class CertifiedRoutes:
    """``routes()`` is mounted by whoever owns the listener."""

    def __init__(self, bundles: CertifiedBundles, history: History) -> None:
        self._bundles = bundles
        self._history = history

    def routes(self) -> list[Route]:
        return [
            Route("/v1/bundles/{number}", self._bundle),
            Route("/v1/proofs/{leaf}", self._proof),
        ]

    async def _bundle(self, request: Request) -> Response:
        try:
            number = _read_number(request.path_params["number"], "bundle")
        except MalformedInput as error:
            return _refuse(error)
        try:
            opened = await asyncio.to_thread(self._bundles.describe, number)
        except (TransientError, RemoteFault) as error:
            return _fail(error)
        if opened is None:
            newest = await asyncio.to_thread(self._history.newest)
            return _missing("bundle", f"{number} is not verified here", newest=newest)
        manifest = encode_manifest(opened.manifest)
        said = describe_bundle(opened)
        if "json" in request.headers.get("accept", ""):
            return JSONResponse({**said, "manifest": encode_base64url(manifest)}, headers=KEPT)
        headers = {f"logstore-{name.replace('_', '-')}": str(value) for name, value in said.items()}
        return Response(manifest, media_type=CBOR, headers={**KEPT, **headers})

    async def _proof(self, request: Request) -> Response:
        try:
            leaf = _read_leaf(request.path_params["leaf"])
            part, timestamp_ms, as_of = _read_place(request)
        except MalformedInput as error:
            return _refuse(error)
        try:
            stored = await asyncio.to_thread(self._prove, part, timestamp_ms, leaf, as_of)
        except (TransientError, RemoteFault) as error:
            return _fail(error)
        if stored is None:
            return _missing("leaf", "no such message is in a bundle that is verified here")
        return Response(stored, media_type=CBOR, headers=KEPT)

    def _prove(self, part: StreamPart, timestamp_ms: int, leaf: Digest, as_of: int | None) -> bytes | None:
        if as_of is None:
            as_of = self._history.newest()
        if as_of is None:
            return None
        stored = self._history.prove_message(part, timestamp_ms, leaf, as_of)
        return None if stored is None else encode_stored(stored)


def describe_bundle(opened: OpenedBundle) -> dict[str, Any]:
    """What the contract holds of a bundle, as JSON values."""
    bundle = opened.bundle
    return {
        "number": bundle.number,
        "root": "0x" + bundle.root.hex(),
        "storage_id": encode_storage_id(bundle.storage_id),
        "first_ms": bundle.first_ms,
        "end_ms": bundle.end_ms,
        "block": bundle.block_number,
    }


def _read_place(request: Request) -> tuple[StreamPart, int, int | None]:
    asked = request.query_params
    stream_id = asked.get("stream", "")
    if not 0 < len(stream_id.encode()) <= 256:
        raise MalformedInput("stream", "not a text of 1 to 256 bytes")
    partition, timestamp_ms = (_read_number(asked.get(name, ""), name) for name in ("partition", "timestamp"))
    as_of = _read_number(asked["asOf"], "asOf") if "asOf" in asked else None
    return (stream_id, partition), timestamp_ms, as_of


def _read_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < MAX_NUMBER):
        raise MalformedInput(name, "not a number")
    return int(text)


def _read_leaf(text: str) -> Digest:
    try:
        leaf = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        leaf = b""
    if len(leaf) != 32:
        raise MalformedInput("leaf", "not 32 bytes in hex")
    return Digest(leaf)


def _refuse(error: MalformedInput) -> Response:
    return JSONResponse({"error": str(error), "field": error.field}, 400)


def _fail(error: TransientError | RemoteFault) -> Response:
    """404 where a bundle is not known here; else what fails lies behind us and is no fault of who asks."""
    if isinstance(error, NotVerifiedYet):
        return JSONResponse({"error": error.message, "field": "asOf", "newest": error.newest}, 404)
    status = 503 if isinstance(error, TransientError) else 502
    return JSONResponse({"error": error.message}, status, {"retry-after": "5"} if status == 503 else None)


def _missing(field: str, reason: str, **more: Any) -> Response:
    return JSONResponse({"error": f"{field}: {reason}", "field": field, **more}, 404)
