"""The operator listener: status page, the same as data, metrics, health. Reads only; on loopback unless told otherwise.

    GET /                   one screen of HTML that refreshes itself
    GET /status.json        the same as data; ``limit``: how many windows, at most 10 000
    GET /participation.json  how this validator took part in the windows since ``since_ms``
    GET /statements.json    own vote statements of ``instance`` (such as window:1700000000000), canonical bytes in hex
    GET /observations.json  observations that the decided outcome of ``instance`` used: the digests it names, and
                            statement and body of those that are kept; canonical bytes in hex
    GET /metrics            Prometheus
    GET /healthz            the process answers
    GET /readyz             database, schema, disk, chain, and that somebody looks for what is due; 503 if one fails

In JSON, addresses, digests and roots are 0x-hex, storage ids and the wallet base64url as Arweave writes them, times
Unix ms. Beside the fields of ``validator.store.view.status.Status``, status.json has ``verdict`` (level: "healthy",
"degraded" or "not taking part"; text; reasons), ``causes`` (what stands still outside, by its one name, and since
when), ``seat`` (standing, epoch and its end, members, epoch and time of the next change), ``peers`` (reachable,
clock_ms, head, error), ``balances`` (of the keys that this process knows and the node's stake, in base units) and
``queues`` (messages that wait); they are null or empty until the server has looked.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from validator.metrics import CONTENT_TYPE, render_metrics
from validator.protocol.errors import TransientError
from validator.protocol.model import InstanceId
from validator.server.causes import CauseFound, find_causes
from validator.server.pages.look import SCRIPT_HASH
from validator.server.pages.status import render_problem, render_status
from validator.server.samples import samples
from validator.server.surroundings import PeerSeen, Surroundings
from validator.server.verdict import judge, waits_for
from validator.steps.seat import describe_seat
from validator.store.view.status import (
    Check,
    ParticipationView,
    RoundView,
    Status,
    UsedObservations,
    WindowView,
    shown_state,
)

MAX_LIMIT = 10_000
DEFAULT_LIMIT = 100

_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src '{SCRIPT_HASH}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'".encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class OperatorView(Protocol):
    """What the listener shows; ``validator.store.view.screen.SqlView`` fulfils it."""

    def load_status(self, limit: int = DEFAULT_LIMIT) -> Status: ...

    def load_participation(self, since_ms: int) -> ParticipationView: ...

    def load_own_statements(self, instance: InstanceId) -> list[bytes]: ...

    def load_used_observations(self, instance: InstanceId) -> UsedObservations | None: ...

    def check_ready(self) -> list[Check]: ...


def create_app(view: OperatorView, look_around: Callable[[], Surroundings] = Surroundings) -> Starlette:
    """ASGI application of one validator's operator listener. Requests change nothing but the readiness probe's row.

    ``look_around``: what a thread of the process has seen outside the database.
    """
    answers = _Answers(view, look_around)
    routes = {
        "/": answers.page,
        "/status.json": answers.status,
        "/participation.json": answers.participation,
        "/statements.json": answers.statements,
        "/observations.json": answers.observations,
        "/metrics": answers.metrics,
        "/healthz": answers.healthz,
        "/readyz": answers.readyz,
    }
    return Starlette(
        routes=[Route(path, handler, methods=["GET"]) for path, handler in routes.items()],
        middleware=[Middleware(_SafeHeaders)],
        exception_handlers={_BadParameter: _bad_parameter, TransientError: _not_now},
    )


class _Answers:
    """One method per path."""

    def __init__(self, view: OperatorView, look_around: Callable[[], Surroundings]) -> None:
        self._view = view
        self._look_around = look_around

    def page(self, request: Request) -> Response:
        status = self._view.load_status(_limit(request))
        return HTMLResponse(render_status(status, self._view.check_ready(), self._look_around()))

    def status(self, request: Request) -> Response:
        status = self._view.load_status(_limit(request))
        return JSONResponse(status_data(status, self._view.check_ready(), self._look_around()))

    def participation(self, request: Request) -> Response:
        return JSONResponse(dataclasses.asdict(self._view.load_participation(_since(request))))

    def statements(self, request: Request) -> Response:
        instance = _instance(request)
        return JSONResponse(
            {"instance": str(instance), "statements": [data.hex() for data in self._view.load_own_statements(instance)]}
        )

    def observations(self, request: Request) -> Response:
        instance = _instance(request)
        used = self._view.load_used_observations(instance)
        named = () if used is None else used.named
        held = () if used is None else used.held
        return JSONResponse(
            {
                "instance": str(instance),
                "decided": used is not None,
                "used": [digest.hex() for digest in named],
                "observations": [{"statement": said.hex(), "body": body.hex()} for said, body in held],
            }
        )

    def metrics(self, _request: Request) -> Response:
        return Response(render_metrics(lambda: samples(self._view, self._look_around())), media_type=CONTENT_TYPE)

    def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(self, _request: Request) -> Response:
        checks = self._view.check_ready()
        ready = all(check.ok for check in checks)
        data = {"ready": ready, "checks": [dataclasses.asdict(check) for check in checks]}
        return JSONResponse(data, status_code=200 if ready else 503)


class _BadParameter(Exception):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")


def _bad_parameter(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def _not_now(request: Request, error: Exception) -> Response:
    if request.url.path == "/":
        return HTMLResponse(render_problem(str(error)), status_code=503)
    return JSONResponse({"error": str(error)}, status_code=503)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise _BadParameter("limit", f"must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def _since(request: Request) -> int:
    text = request.query_params.get("since_ms", "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise _BadParameter("since_ms", "must be a time in Unix ms")
    return int(text)


def _instance(request: Request) -> InstanceId:
    try:
        instance = InstanceId.parse(request.query_params.get("instance", ""))
        if not 0 <= instance.number < 1 << 63:
            raise ValueError("the number is out of range")
    except ValueError as error:
        raise _BadParameter("instance", str(error)) from error
    return instance


class _SafeHeaders:
    """Headers on every answer: nothing is cached, framed, or loaded from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, send_with_headers)


# --- the same as data -----------------------------------------------------------------------------------


def status_data(status: Status, checks: Sequence[Check], around: Surroundings) -> dict[str, Any]:
    """JSON form of a status; each window carries its round's fields, so a reader needs one loop."""
    data = {field.name: _plain(field.name, getattr(status, field.name)) for field in dataclasses.fields(status)}
    causes, verdict = find_causes(status), judge(status, checks, around)
    data["verdict"] = {"level": verdict.level.value, "text": verdict.text, "reasons": list(verdict.reasons)}
    data["causes"] = [str(cause) for cause in causes]
    data["seat"] = _seat_data(around, status.now_ms)
    data["peers"] = [_peer_data(peer) for peer in around.peers]
    data["balances"] = dict(around.balances)
    data["queues"] = None if around.queues is None else dict(around.queues)
    data["windows"] = [_window_data(window, status, causes) for window in status.windows]
    data["late"] = [{"number": view.instance.number, **_round_data(view)} for view in status.late]
    return data


def _seat_data(around: Surroundings, now_ms: int) -> dict[str, Any] | None:
    seat = around.seat
    if seat is None:
        return None
    return {
        "standing": seat.standing.value,
        "observer": seat.observer,
        "epoch": None if seat.epoch is None else seat.epoch.number,
        "epoch_ends_ms": None if seat.epoch is None else seat.epoch.end_ms,
        "members": ["0x" + member.hex() for member in seat.members],
        "changes_epoch": seat.changes_epoch,
        "changes_ms": seat.changes_ms,
        "text": describe_seat(seat, now_ms),
    }


def _peer_data(peer: PeerSeen) -> dict[str, Any]:
    return {
        "address": "0x" + peer.address.hex(),
        "name": peer.name,
        "reachable": peer.clock_ms is not None,
        "clock_ms": peer.clock_ms,
        "head": peer.head,
        "error": peer.error,
    }


def _window_data(window: WindowView, status: Status, causes: Sequence[CauseFound]) -> dict[str, Any]:
    return {
        "start_ms": window.start_ms,
        "end_ms": window.end_ms,
        "epoch": window.epoch,
        "bundle": window.bundle,
        **_round_data(window.round),
        "state": shown_state(window),
        "waits_for": waits_for(window, status, causes),
    }


def _round_data(view: RoundView | None) -> dict[str, Any]:
    return {
        "state": "" if view is None else view.state,
        "round": 0 if view is None else view.round,
        "step": "" if view is None else view.step,
        "leader": None if view is None or view.leader is None else "0x" + view.leader.hex(),
        "votes": {} if view is None else dict(view.votes),
        "waits_for": "" if view is None else view.waits_for,
        "opened_ms": None if view is None else view.opened_ms,
        "decided_ms": None if view is None else view.decided_ms,
    }


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        if name in ("storage_id", "wallet_address"):
            return base64.urlsafe_b64encode(value).decode().rstrip("=")
        return "0x" + value.hex()
    if isinstance(value, InstanceId):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain("", item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain("", item) for item in value]
    return value
