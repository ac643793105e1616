"""What Web3Signer does over HTTP in its mode ``eth1``, with keys of a test, and what goes wrong with such a server."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import coincurve

from validator.protocol.codec.secp256k1 import SigningKey

SIGN, KEYS = "/api/v1/eth1/sign/", "/api/v1/eth1/publicKeys"
Answer = tuple[int, bytes]


def public_key_of(key: SigningKey) -> str:
    """As Web3Signer names a key: uncompressed, without the leading 04."""
    secret = bytes.fromhex(key.secret_hex()[2:])
    return "0x" + coincurve.PrivateKey(secret).public_key.format(compressed=False)[1:].hex()


@dataclass
class StandIn:
    """The server as a test sees it. ``instead`` and ``after`` put another answer in the place of its own."""

    keys: list[SigningKey]
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    name_of: Callable[[SigningKey], str] = public_key_of
    instead: Callable[[str], Answer | None] = lambda _path: None
    after: Callable[[bytes], bytes] = lambda signature: signature
    hang_s: float = 0.0
    port: int = 0

    def url(self, key: SigningKey, scheme: str = "http", host: str = "127.0.0.1") -> str:
        """What an operator writes as the key."""
        return f"{scheme}://{host}:{self.port}/0x{key.address.hex()}"

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        self.asked.append((method, path))
        time.sleep(self.hang_s)
        instead = self.instead(path)
        if instead is not None:
            return instead
        if (method, path) == ("GET", KEYS):
            return 200, json.dumps([self.name_of(key) for key in self.keys]).encode()
        key = next((k for k in self.keys if path == SIGN + self.name_of(k)), None)
        if method != "POST" or key is None:
            return 404, b""
        data = json.loads(body)["data"]
        return 200, b"0x" + self.after(key.sign_payload(bytes.fromhex(data.removeprefix("0x")))).hex().encode()


@contextmanager
def web3signer(*keys: SigningKey, tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """A server with these keys on a port of its own."""
    signer = StandIn(list(keys))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            signer.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, content = signer.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            del request, client_address  # a client that refuses our certificate

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    signer.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield signer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
