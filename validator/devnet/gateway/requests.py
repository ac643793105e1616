"""Bodies and path parameters of requests, bounded; what does not parse is answered as a node answers it."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from validator.protocol.codec import arweave, arweave_text
from validator.protocol.codec.arweave_text import decode_base64url
from validator.protocol.errors import MalformedInput


async def read_body(request: Request, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            # the rest is not read: without the end of the connection it would be, and thrown away, however long
            raise HTTPException(413, "Request body is too large.", {"connection": "close"})
        parts.append(part)
    return b"".join(parts)


def parse_id(request: Request, name: str = "id") -> bytes:
    try:
        return arweave_text.decode_storage_id(request.path_params[name], name)
    except MalformedInput as error:
        raise HTTPException(400, "Invalid hash.") from error


def parse_address(request: Request) -> bytes:
    try:
        return decode_base64url(request.path_params["address"], "address", max_bytes=arweave.ADDRESS_BYTES)
    except MalformedInput as error:
        raise HTTPException(400, "Invalid address.") from error


def parse_integer(request: Request, name: str) -> int:
    try:
        return arweave_text.decode_integer(request.path_params[name], name)
    except MalformedInput as error:
        raise HTTPException(400, str(error)) from error


def parse_block_hash(request: Request) -> bytes:
    try:
        return decode_base64url(request.path_params["hash"], "hash", max_bytes=arweave.ANCHOR_BYTES)
    except MalformedInput as error:
        raise HTTPException(400, "Invalid hash.") from error
