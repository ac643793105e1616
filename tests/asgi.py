"""A client that calls an ASGI application in this process, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx


class AsgiClient:
    """``get`` and ``post`` as httpx has them; an exception of the application is answered with 500."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(
        self, path: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return asyncio.run(self._send("GET", path, params=params, headers=headers))

    def post(self, path: str, content: bytes = b"") -> httpx.Response:
        return asyncio.run(self._send("POST", path, content=content))

    async def _send(self, method: str, path: str, **fields: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://operator.test") as client:
            return await client.request(method, path, **fields)
