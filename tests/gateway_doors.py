"""Several gateways before one weave: doors, each with its own name, its own counts and its own way of failing."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx

Judge = Callable[[str, str], int | None]
"""Method and path of a request: the status that it is answered by instead of being let through, or None."""


class Door(http.server.ThreadingHTTPServer):
    """Lets requests through to a gateway, unless ``refuses`` says otherwise."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, target: str, client: httpx.Client) -> None:
        super().__init__(("127.0.0.1", 0), _Porter)
        self.target = target
        self.client = client
        self.refuses: Judge = lambda _method, _path: None
        self.passed: Counter[str] = Counter()
        """Requests that were let through, by method and first part of the path."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up."""


class _Porter(http.server.BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._pass(b"")

    def do_POST(self) -> None:
        self._pass(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def _pass(self, body: bytes) -> None:
        status = self.server.refuses(self.command, self.path)
        content = b""
        if status is None:
            kept = {name: value for name, value in self.headers.items() if name.lower() in ("accept", "content-type")}
            answer = self.server.client.request(
                self.command, self.server.target + self.path, content=body, headers={**kept, "accept-encoding": ""}
            )
            status, content = answer.status_code, answer.content
            self.server.passed[f"{self.command} /{self.path.split('/')[1]}"] += 1
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def open_doors(target: str, count: int) -> Iterator[list[Door]]:
    """So many doors to the gateway at ``target``."""
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=10, trust_env=False))
        doors = [Door(target, client) for _ in range(count)]
        for door in doors:
            threading.Thread(target=door.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(door.server_close)
            stack.callback(door.shutdown)
        yield doors
