"""A provider in front of a real node: forwards JSON-RPC, and limits, lags, refuses or lies as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

Call = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A whole HTTP answer that the provider gives itself."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(code: int, message: str) -> dict[str, Any]:
    """The JSON-RPC error of one call."""
    return {"error": {"code": code, "message": message}}


def whole_refusal(status: int, code: int, message: str, **headers: str) -> Said:
    """One JSON-RPC error without an id, in the place of all answers."""
    return Said(status, json.dumps({"jsonrpc": "2.0", "id": None, **refusal(code, message)}).encode(), headers)


class Provider:
    """Use as a context manager. Hooks may be set at any time, each called for every request:

    ``gate``    sees all calls of a body; a ``Said`` is the answer to all of them
    ``instead`` sees one call; a dict ("result" or "error") is its answer, without asking the node
    ``after``   sees a call and the node's answer, and gives the answer that is sent
    """

    def __init__(self, upstream: str) -> None:
        self.gate: Callable[[list[Call]], Said | None] = lambda _: None
        self.instead: Callable[[Call], dict[str, Any] | None] = lambda _: None
        self.after: Callable[[Call, dict[str, Any]], dict[str, Any]] = lambda _, given: given
        self.bodies: list[list[Call]] = []
        self.at: list[float] = []
        """When each body came, in monotonic seconds."""
        node = httpx.Client(base_url=upstream, timeout=30.0, trust_env=False)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                parsed = json.loads(self.rfile.read(int(self.headers["content-length"])))
                calls = parsed if isinstance(parsed, list) else [parsed]
                provider.bodies.append(calls)
                provider.at.append(time.monotonic())
                said = provider.gate(calls)
                if said is None:
                    try:
                        answers = [provider.answer(node, call) for call in calls]
                    except (httpx.HTTPError, RuntimeError):  # the test has ended, or the node is gone
                        self.close_connection = True
                        return
                    said = Said(200, json.dumps(answers if isinstance(parsed, list) else answers[0]).encode())
                try:
                    self.send_response(said.status)
                    for name, value in {"content-length": str(len(said.body)), **said.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(said.body)
                except OSError:
                    self.close_connection = True  # who asked has not waited

            def log_message(self, *_: Any) -> None:
                pass

        self._node = node
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, node: httpx.Client, call: Call) -> dict[str, Any]:
        given = self.instead(call)
        if given is None:
            given = self.after(call, node.post("", json=call).json())
        return {"jsonrpc": "2.0", "id": call["id"], **{k: v for k, v in given.items() if k in ("result", "error")}}

    def methods(self) -> list[str]:
        """Every call that came, in order."""
        return [call["method"] for body in self.bodies for call in body]

    def __enter__(self) -> Provider:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._node.close()
