"""The explorer's paths. Parse, read on a thread, render, answer; so many at once, the rest are asked to come again.

    /explorer/                       streams: q, page, span
    /explorer/stream                 id, partition, and span; from (Unix ms) or at (UTC), after
    /explorer/message                id, partition, timestamp, leaf
    /explorer/bundles  /bundle       to; number
    /explorer/brokers
    /explorer/assets/{digest}/…      kept by browsers for ever

Its threads are its own, so a slow gateway takes none from answers or ingest, and together they work a fifth of one
core's time (``pace``), so a crowd of readers does not either. A page is rendered once for all who ask for it within a
second or two.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from validator.broker.asked import read_number, require_registered
from validator.broker.explorer import pages
from validator.broker.explorer.assets import CHECKING, Assets
from validator.broker.explorer.counting import Span
from validator.broker.explorer.message_page import message_page
from validator.broker.explorer.pace import Pace
from validator.broker.explorer.pieces import document
from validator.broker.explorer.reading import (
    Parts,
    read_brokers,
    read_bundle,
    read_bundles,
    read_head,
    read_message,
    read_part,
    read_streams,
)
from validator.broker.refusal import Refused, bad, busy
from validator.look import show
from validator.ports.message_store import SortKey
from validator.protocol.codec.limits import MAX_ID_BYTES, MAX_SEQUENCE, MAX_TIMESTAMP_MS
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Digest, StreamPart

ROOT = "/explorer"
QUICK, SLOW = 2, 2
"""Threads: of pages from what is held, and of those that may wait for a gateway."""
UNDER_WAY = 24
"""Pages at once."""
LIVE_S, LASTING_S = 1.5, 15.0
REMEMBERED, REMEMBERED_BYTES = 128, 16 << 20
MAX_NUMBER = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page; ``seconds``: how long it serves."""

    status: int
    body: bytes
    seconds: float


class Explorer:
    """Belongs to one event loop."""

    def __init__(self, parts: Parts, rpc_url: str = "") -> None:
        """``rpc_url``: an EVM node that browsers may ask for what the contract holds; none: they ask nobody."""
        self._parts = parts
        self._rpc_url = rpc_url
        self._assets = Assets()
        self._quick = ThreadPoolExecutor(QUICK, thread_name_prefix="explorer")
        self._slow = ThreadPoolExecutor(SLOW, thread_name_prefix="explorer-slow")
        self._pace = Pace()
        self._known: OrderedDict[str, tuple[float, Page]] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[Page]] = {}
        self._headers = self._make_headers()

    def close(self) -> None:
        for pool in (self._quick, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> list[Route]:
        """To be mounted before paths with stream ids."""
        paths = {
            "": (self._streams, self._quick),
            "stream": (self._part, self._quick),
            "message": (self._message, self._slow),
            "bundles": (self._bundles, self._quick),
            "bundle": (self._bundle, self._slow),
            "brokers": (self._brokers, self._quick),
        }
        pages = [Route(f"{ROOT}/{path}", self._endpoint(make, pool)) for path, (make, pool) in paths.items()]
        return [
            Route("/", self._begin),
            Route(ROOT, self._begin),
            *pages,
            Route(f"{ROOT}/{self._assets.folder}/{{name:path}}", self._asset),
        ]

    async def _begin(self, _request: Request) -> Response:
        """Relative, as all links are."""
        return RedirectResponse("explorer/", 302)

    # --- answering

    def _endpoint(self, make: Callable[[Request], Page], pool: ThreadPoolExecutor) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            page = await self._find(request, make, pool)
            headers = {**self._headers, "cache-control": f"public, max-age={int(page.seconds)}"}
            if page.status == 503:
                headers |= {"retry-after": "5", "cache-control": "no-store"}
            return Response(page.body, page.status, headers, "text/html; charset=utf-8")

        return answer

    async def _find(self, request: Request, make: Callable[[Request], Page], pool: ThreadPoolExecutor) -> Page:
        """One that is remembered, one that is being made, or a new one."""
        key = f"{request.url.path}?{request.url.query}"
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= UNDER_WAY:
                return self._sorry(busy(f"{UNDER_WAY} pages are being made; please come again"))
            task = self._under_way[key] = asyncio.create_task(self._make(key, request, make, pool))
        return await asyncio.shield(task)

    async def _make(
        self, key: str, request: Request, make: Callable[[Request], Page], pool: ThreadPoolExecutor
    ) -> Page:
        try:
            page = await asyncio.get_running_loop().run_in_executor(pool, self._pace.run, partial(make, request))
        except Refused as refused:
            page = self._sorry(refused)
        except (TransientError, RemoteFault) as error:
            page = self._sorry(busy(str(error)))
        finally:
            del self._under_way[key]
        self._remember(key, page)
        return page

    def _remember(self, key: str, page: Page) -> None:
        self._known.pop(key, None)
        self._known[key] = (time.monotonic() + page.seconds, page)
        total = sum(len(page.body) for _, page in self._known.values())
        while len(self._known) > REMEMBERED or total > REMEMBERED_BYTES:
            _, (_, oldest) = self._known.popitem(last=False)
            total -= len(oldest.body)

    def _sorry(self, refused: Refused) -> Page:
        titles = {400: "That cannot be shown", 404: "Not here", 503: "Not now"}
        body = pages.nothing_page(titles.get(refused.status, "Not here"), refused.reason)
        return self._page(titles.get(refused.status, "Not here"), "", body, status=refused.status)

    def _page(
        self, title: str, section: str, body: str, *, status: int = 200, seconds: float = LIVE_S, checks: bool = False
    ) -> Page:
        """``title`` is HTML."""
        programs = CHECKING if checks else ()
        text = document(title, section, body, read_head(self._parts), self._assets, programs=programs)
        return Page(status, text.encode("utf-8", "replace"), seconds)

    async def _asset(self, request: Request) -> Response:
        asset = self._assets.find(request.path_params["name"])
        if asset is None:
            return Response(status_code=404, headers=self._headers)
        packed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {
            "cache-control": "public, max-age=31536000, immutable",
            "x-content-type-options": "nosniff",
            "vary": "accept-encoding",
            **({"content-encoding": "gzip"} if packed else {}),
        }
        return Response(asset.packed if packed else asset.plain, headers=headers, media_type=asset.kind)

    def _make_headers(self) -> dict[str, str]:
        """Browsers run our programs and the one import map, load nothing from elsewhere, ask only the named node."""
        node = urlsplit(self._rpc_url)
        asks = f"connect-src {node.scheme}://{node.netloc}; " if self._rpc_url else ""
        policy = (
            f"default-src 'none'; script-src 'self' '{self._assets.import_map_hash}'; style-src 'self'; "
            f"img-src 'self'; {asks}form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
        }

    # --- pages; each on a thread

    def _streams(self, request: Request) -> Page:
        asked = request.query_params.get("q", "")[:MAX_ID_BYTES]
        view = read_streams(self._parts, asked, read_number(request, "page", 0, most=10_000), _read_span(request))
        return self._page("Streams", "streams", pages.streams_page(view, read_head(self._parts)))

    def _part(self, request: Request) -> Page:
        part = self._read_part(request)
        from_ms = _read_from(request)
        after = None if from_ms is None else _read_after(request, from_ms)
        view = read_part(self._parts, part, from_ms, after, _read_span(request))
        name = show(part[0], 80)
        return self._page(name, "streams", pages.part_page(view, read_head(self._parts)))

    def _message(self, request: Request) -> Page:
        part = self._read_part(request)
        timestamp_ms, leaf = read_number(request, "timestamp", None, most=MAX_TIMESTAMP_MS), _read_leaf(request)
        view = read_message(self._parts, part, timestamp_ms, leaf)
        if view is None:
            raise Refused(404, "neither this broker nor a bundle has a message of this leaf at this time")
        manager = self._parts.broker.network.contracts.report_manager
        body = message_page(view, read_head(self._parts), manager, self._rpc_url)
        seconds = LIVE_S if view.stored is None else LASTING_S
        return self._page("Message", "streams", body, seconds=seconds, checks=True)

    def _bundles(self, request: Request) -> Page:
        newest = read_number(request, "to", None, most=MAX_NUMBER) if "to" in request.query_params else None
        found, following = read_bundles(self._parts, newest)
        body = pages.bundles_page(
            found, following, read_head(self._parts), is_following=self._parts.bundles is not None
        )
        return self._page("Bundles", "bundles", body)

    def _bundle(self, request: Request) -> Page:
        number = read_number(request, "number", None, most=MAX_NUMBER)
        view = read_bundle(self._parts, number)
        if view is None:
            raise Refused(404, f"bundle {number} is not verified here")
        body = pages.bundle_page(view)
        return self._page(f"Bundle #{number}", "bundles", body, seconds=LASTING_S)

    def _brokers(self, _request: Request) -> Page:
        return self._page("Brokers", "brokers", pages.brokers_page(read_brokers(self._parts), read_head(self._parts)))

    def _read_part(self, request: Request) -> StreamPart:
        stream_id = request.query_params.get("id", "")
        if not 0 < len(stream_id.encode("utf-8", "replace")) <= MAX_ID_BYTES:
            raise bad("id", f"not 1 to {MAX_ID_BYTES} bytes")
        part = (stream_id, read_number(request, "partition", 0, most=9_999))
        require_registered(self._parts.broker.chain, part)
        return part


def _read_span(request: Request) -> Span:
    try:
        return Span(request.query_params.get("span", Span.MINUTES))
    except ValueError:
        raise bad("span", f"one of {', '.join(Span)}") from None


def _read_from(request: Request) -> int | None:
    if "from" in request.query_params:
        return read_number(request, "from", None, most=MAX_TIMESTAMP_MS)
    text = request.query_params.get("at", "")
    if not text:
        return None
    try:
        return max(0, round(datetime.fromisoformat(text[:32]).replace(tzinfo=UTC).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise bad("at", "not a time like 2026-11-01T12:00:00") from None


def _read_after(request: Request, from_ms: int) -> SortKey | None:
    """The place behind which a page begins, as the page before names it."""
    text = request.query_params.get("after")
    if text is None:
        return None
    try:
        number, publisher, leaf, chain = text[:8_192].split(".", 3)
        if not (number.isascii() and number.isdecimal() and len(number) < 11) or int(number) > MAX_SEQUENCE:
            raise ValueError
        key = SortKey(from_ms, int(number), bytes.fromhex(publisher), chain, Digest(bytes.fromhex(leaf)))
        chain.encode()
    except ValueError:
        raise bad("after", "not a place that a page has named") from None
    return key


def _read_leaf(request: Request) -> Digest:
    try:
        leaf = bytes.fromhex(request.query_params.get("leaf", "").removeprefix("0x"))
    except ValueError:
        leaf = b""
    if len(leaf) != 32:
        raise bad("leaf", "not 32 bytes in hex")
    return Digest(leaf)
