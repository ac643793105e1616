"""What a broker's operator sees, on a listener of its own: a page, the same as data, metrics, health, readiness; and of
brokers that lied the evidence, which is for handing on: ``/evidence.json`` lists it, ``/evidence/NAME`` is its bytes.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from validator.broker.core import Broker
from validator.broker.evidence import EvidenceBook
from validator.broker.ingest import Ingest
from validator.broker.keeping import DiskFloor
from validator.broker.neighbours import Neighbours
from validator.broker.serve import Server
from validator.metrics import CONTENT_TYPE, Sample, render_metrics

CHAIN_LATE_S = 120
"""How old the newest block may be before the broker is not ready."""
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left;vertical-align:top}
.no{color:#b00020}"""
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


@dataclass(slots=True)
class Answering:
    """What was last found of a database: why it does not answer, or nothing."""

    error: str = "never asked"


@dataclass(slots=True)
class View:
    """All that is shown. ``ingest`` is None in a process that only serves, ``database`` where files are the store."""

    broker: Broker
    server: Server
    ingest: Ingest | None
    floor: DiskFloor
    neighbours: Neighbours
    started_s: float
    database: Answering | None = None
    leads: Callable[[], bool] = lambda: True

    def checks(self) -> dict[str, tuple[bool, str]]:
        block = self.broker.chain.block
        age_s = None if block is None else round(time.time()) - block.timestamp_s
        database = self.database
        shared = {} if database is None else {"database": (not database.error, database.error or "answers")}
        return shared | {
            "chain": (age_s is not None and age_s < CHAIN_LATE_S, "never read" if age_s is None else f"{age_s} s old"),
            "key": (
                not self.neighbours.hearing.has_twin,
                "another process speaks with it" if self.neighbours.hearing.has_twin else "nobody else speaks with it",
            ),
            "disk": (self.floor.has_room(), "above its floor" if self.floor.has_room() else "below its floor"),
        }

    def status(self) -> dict[str, Any]:
        admission, chain, ingest = self.broker.admission, self.broker.chain, self.ingest
        bus = self.broker.bus
        return {
            "broker": "0x" + self.broker.address.hex(),
            "network": self.broker.network.name,
            "running_s": round(time.monotonic() - self.started_s),
            "leads": self.leads(),
            "block": None if chain.block is None else chain.block.number,
            "parts": {
                "registered": len(chain.parts()),
                "joined": 0 if ingest is None else ingest.joined,
                "refused": 0 if ingest is None else ingest.refused_parts,
            },
            "messages": {
                "stored": admission.stored,
                "known": admission.known,
                "dropped": 0 if bus is None else bus.dropped(),
                "refused": {str(why): count for why, count in sorted(admission.refused.items())},
            },
            "answers": {"under_way": self.server.answers.used, "followers": self.server.followers.used},
            "consumers": self.broker.accounts.count(),
            "others": self.neighbours.status(),
        }

    def samples(self) -> Iterator[Sample]:
        status = self.status()
        for name, help_text in (("stored", "Messages kept"), ("known", "Messages that were there already")):
            yield Sample(f"logstore_broker_{name}", help_text, status["messages"][name])
        yield Sample("logstore_broker_dropped", "Messages that the bus let go", status["messages"]["dropped"])
        for why, count in status["messages"]["refused"].items():
            yield Sample("logstore_broker_refused", "Messages refused", count, {"reason": why})
        for state, count in status["parts"].items():
            yield Sample("logstore_broker_parts", "Stream partitions", count, {"state": state})
        for kind, count in status["answers"].items():
            yield Sample("logstore_broker_answers", "Answers under way", count, {"kind": kind})
        yield from self.neighbours.samples()
        yield Sample("logstore_broker_block", "Newest block that was read", status["block"] or 0)


def create_app(view: View) -> Starlette:
    """Requests change nothing."""

    def answer(make: Callable[[], Response]) -> Callable[[Request], Response]:
        def endpoint(_request: Request) -> Response:
            response = make()
            response.headers.update(_HEADERS)
            return response

        return endpoint

    def ready() -> Response:
        checks = view.checks()
        data = {name: {"ok": ok, "detail": detail} for name, (ok, detail) in checks.items()}
        return JSONResponse(data, 200 if all(ok for ok, _ in checks.values()) else 503)

    routes: dict[str, Callable[[], Response]] = {
        "/": lambda: HTMLResponse(render_page(view)),
        "/status.json": lambda: JSONResponse(view.status()),
        "/metrics": lambda: Response(render_metrics(view.samples), media_type=CONTENT_TYPE),
        "/healthz": lambda: PlainTextResponse("ok\n"),
        "/readyz": ready,
        "/evidence.json": lambda: JSONResponse(list_evidence(view.neighbours.book)),
    }

    def evidence(request: Request) -> Response:
        wanted = request.path_params["name"]
        found = next((e for e in view.neighbours.book.all() if e.name == wanted), None)
        if found is None:
            return PlainTextResponse("no such evidence\n", 404, _HEADERS)
        return Response(found.encode(), headers=_HEADERS, media_type="application/cbor")

    return Starlette(
        routes=[
            *(Route(path, answer(make), methods=["GET"]) for path, make in routes.items()),
            Route("/evidence/{name}", evidence, methods=["GET"]),
        ]
    )


def list_evidence(book: EvidenceBook) -> list[dict[str, Any]]:
    """Each piece that is kept, newest first: whose, what, when, how many signed words, and where its bytes are."""
    return [
        {
            "broker": "0x" + e.broker.hex(),
            "lie": str(e.lie),
            "detail": e.detail,
            "at_ms": e.at_ms,
            "words": len(e.words),
            "path": f"/evidence/{e.name}",
        }
        for e in book.all()
    ]


def render_page(view: View) -> str:
    """The status as one table, no script."""
    rows = [
        f"<tr><th>{html.escape(name)}</th><td class={'ok' if ok else 'no'}>{html.escape(detail)}</td></tr>"
        for name, (ok, detail) in view.checks().items()
    ]
    for name, value in view.status().items():
        shown = value if not isinstance(value, dict) else ", ".join(f"{k} {v}" for k, v in _flat(value))
        rows.append(f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(shown))}</td></tr>")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5><title>Broker</title>"
        f"<style>{_STYLE}</style><h1>Log Store broker</h1><table>{''.join(rows)}</table></html>"
    )


def _flat(data: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name} ")
        else:
            yield f"{before}{name}", value
