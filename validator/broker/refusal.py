"""Answers other than what was asked for: a status, the field that is to blame, and the reason in words."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """Ends a request. ``field``: which part of it is to blame, empty where none is."""

    def __init__(self, status: int, reason: str, *, field: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.field = field
        self.headers = headers


def bad(field: str, reason: str) -> Refused:
    """400: names the field."""
    return Refused(400, f"{field}: {reason}", field=field)


def busy(reason: str, *, field: str = "", retry_s: int = 5) -> Refused:
    """503: the same request may succeed in a while."""
    return Refused(503, reason, field=field, headers={"retry-after": str(retry_s)})


async def answer_refused(_request: Request, error: Exception) -> Response:
    """Starlette's handler of ``Refused``."""
    assert isinstance(error, Refused)
    body = {"error": error.reason, **({"field": error.field} if error.field else {})}
    return JSONResponse(body, error.status, error.headers)


async def read_body(request: Request, limit: int) -> bytes:
    """Raises Refused (413) beyond so many bytes; the listener ends a request that dribbles."""
    pieces = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise Refused(413, f"more than {limit} bytes", field="body")
        pieces.append(piece)
    return b"".join(pieces)
