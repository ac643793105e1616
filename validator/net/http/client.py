"""HTTP to addresses that others name: URLs are checked, connections pinned, bytes, time and memory bounded.

Node metadata, and so every broker and peer URL, is hostile input (design: committee, identities); RPC nodes and
gateways are named by the operator, and trusted in where they are, not in what they answer. The rules live here once and
all adapters use them. What happens to one request, module by module:

    urls         scheme, port, length, no user info, no query: nothing is looked up for a URL that breaks a rule
    resolve      one look-up; every address must be global unicast, or lie in a network that the operator allows
    connections  to the very address that was checked; the name is kept for Host, SNI and certificate
    deadline     no call of a socket outlives the request
    bodies       decompression of our own, from raw bytes, with bounded output per step

Built on httpcore, the engine below httpx, since httpx's own layer would have to be switched off piece by piece:
proxies from the environment, redirects, cookies, and a content decoding that hands over 64 MiB at once.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpcore

from validator.net.http.bodies import ENCODINGS, bounded, decompress_bounded
from validator.net.http.connections import MAX_CONNECTIONS_PER_PORT, Connection, Connections, host_bytes
from validator.net.http.resolve import Resolver, resolve
from validator.net.http.urls import IPNetwork, ParsedUrl
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, ValidatorError

MAX_TARGET_CHARS = 8 << 10
FLOOR_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, decompressed. Header names are lower-case; of repeated ones the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as printable text, at most 200 characters: for errors."""
        text = self.body[:800].decode("utf-8", errors="replace")
        return "".join(c if c.isprintable() else "?" for c in text)[:200]


@dataclass(slots=True)
class OpenAnswer:
    """An answer whose body is still under way: read ``chunks`` once.

    ``framed``: a length or chunks tell where the body ends, so reading to the end without an error proves that it came
    whole. Without them a body ends where the connection does, and a broken one looks like a finished one.
    """

    status: int
    headers: dict[str, str]
    chunks: Iterator[bytes] = field(repr=False)
    framed: bool


class BoundedClient:
    """HTTP/1.1 client for hostile answers. Thread-safe; share one per process so that its limits hold.

    Every request has a deadline that covers waiting for a connection, look-up, TLS, headers and body. A redirect is a
    fault. An answer slower than 64 KiB/s ``floor_after_s`` after its head is cut off. With ``resend`` a request whose
    connection was closed while idle is sent once more; without, nothing is sent twice. ``encodings``: what bodies may
    be compressed by.
    """

    def __init__(
        self,
        *,
        allow_nets: Sequence[IPNetwork] = (),
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 10.0,
        floor_after_s: float = FLOOR_AFTER_S,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        user_agent: str = "logstore-validator",
        encodings: Sequence[str] = ENCODINGS,
        per_port: int = MAX_CONNECTIONS_PER_PORT,
        resend: bool = True,
    ) -> None:
        self._allow_nets = tuple(allow_nets)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._floor_after_s = floor_after_s
        self._resolver = resolver
        self._user_agent = user_agent
        self._encodings = tuple(encodings)
        self._resend = resend
        self._connections = Connections(ssl_context, self._allow_nets, per_port)

    def close(self) -> None:
        """Close idle connections; those in use end with their request."""
        self._connections.close()

    def fetch(
        self,
        method: str,
        base: ParsedUrl,
        target: str,
        *,
        max_bytes: int,
        deadline_s: float,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Answer:
        """Send one request and read its whole answer, at most ``max_bytes`` after decompression.

        ``target`` is appended to the base URL's path: "/streams?from=1". Errors as ``stream``.
        """
        with self.stream(
            method, base, target, max_bytes=max_bytes, deadline_s=deadline_s, headers=headers, body=body
        ) as answer:
            return Answer(answer.status, answer.headers, b"".join(answer.chunks))

    @contextmanager
    def stream(
        self,
        method: str,
        base: ParsedUrl,
        target: str,
        *,
        max_bytes: int,
        deadline_s: float,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Iterator[OpenAnswer]:
        """As ``fetch``, but hands the body over in pieces while it arrives.

        Raises:
            TransientError: no connection, a time limit, or the connection broke.
            RemoteFault: not HTTP, a redirect, too slow; MalformedInput: body too large, not decodable, bad URL.

        The errors say their ``reason`` without the address, and ``answer_lost`` where the request may have arrived.
        """
        until = time.monotonic() + deadline_s
        request = self._request(method, base, target, headers, body)
        connection, response = self._send(base, request, until)
        try:
            yield self._open(base, response, max_bytes)
        except _HTTPCORE_ERRORS as error:
            raise _translate(base, error) from error
        finally:
            self._finish(connection, response)

    def _request(
        self, method: str, base: ParsedUrl, target: str, headers: Sequence[tuple[str, str]], body: bytes | None
    ) -> httpcore.Request:
        path = base.path + target
        if not path.startswith("/") or len(path) > MAX_TARGET_CHARS or any(not "!" <= c <= "~" for c in path):
            raise MalformedInput("url", f"request target {path[:80]!r} is not a path of printable ASCII")
        fields = [("Host", base.authority), ("User-Agent", self._user_agent)]
        fields.append(("Accept-Encoding", ", ".join(self._encodings) or "identity"))
        if body is not None:
            fields.append(("Content-Length", str(len(body))))
        given = {name.lower() for name, _ in headers}
        fields = [(name, value) for name, value in fields if name.lower() not in given] + list(headers)
        timeouts = {
            "connect": self._connect_timeout_s,
            "read": self._read_timeout_s,
            "write": self._read_timeout_s,
            "pool": self._connect_timeout_s,
        }
        return httpcore.Request(
            method,
            httpcore.URL(scheme=base.scheme.encode(), host=host_bytes(base.host), port=base.port, target=path.encode()),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in fields],
            content=body,
            extensions={"timeout": timeouts},
        )

    def _send(self, base: ParsedUrl, request: httpcore.Request, until: float) -> tuple[Connection, httpcore.Response]:
        """Over an idle connection if there is one that still answers, else over a new one to a checked address."""
        key = (base.scheme, base.host, base.port)
        connection = self._connections.acquire_idle(key)
        if connection is not None:
            response = self._try_used(base, connection, request, until)
            if response is not None:
                return connection, response
        timeout_s = min(self._connect_timeout_s, until - time.monotonic())
        addresses = resolve(base, allow_nets=self._allow_nets, timeout_s=timeout_s, resolver=self._resolver)
        failure: Exception | None = None
        for address in addresses:
            connection = self._connections.open(key, address, until)
            if connection.used:
                response = self._try_used(base, connection, request, until)
                if response is not None:
                    return connection, response
                connection = self._connections.open(key, address, until, fresh=True)
            try:
                return connection, self._exchange(connection, request, until)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            except _HTTPCORE_ERRORS as error:
                raise _translate(base, error) from error
        if failure is None:
            raise TransientError(f"{base}: no address", url=str(base))
        raise _translate(base, failure) from failure

    def _try_used(
        self, base: ParsedUrl, connection: Connection, request: httpcore.Request, until: float
    ) -> httpcore.Response | None:
        """None if the other side closed the connection while it was idle: a new one may do better."""
        try:
            return self._exchange(connection, request, until)
        except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError) as error:
            if self._resend:
                return None
            raise _translate(base, error) from error
        except _HTTPCORE_ERRORS as error:
            raise _translate(base, error) from error

    def _exchange(self, connection: Connection, request: httpcore.Request, until: float) -> httpcore.Response:
        """Send and read the head of the answer; the connection is gone where that fails."""
        connection.budget.until = until
        connection.used = True
        try:
            return connection.http.handle_request(request)
        except BaseException:
            self._connections.discard(connection)
            raise

    def _open(self, base: ParsedUrl, response: httpcore.Response, max_bytes: int) -> OpenAnswer:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        status = response.status
        if 300 <= status < 400 and status != 304 and (status != 303 or "location" in headers):
            reason = f"HTTP {status}, redirects are refused"
            raise RemoteFault(f"{base}: {reason}", url=str(base), status=status, reason=reason)
        announced = headers.get("content-length", "")
        raw = bounded(base, response.iter_stream(), announced, max_bytes, self._floor_after_s)
        return OpenAnswer(
            status,
            headers,
            decompress_bounded(raw, headers.get("content-encoding", ""), max_bytes, self._encodings),
            framed="content-length" in headers or "transfer-encoding" in headers,
        )

    def _finish(self, connection: Connection, response: httpcore.Response) -> None:
        try:
            response.close()
        except _HTTPCORE_ERRORS:
            self._connections.discard(connection)
            return
        self._connections.give_back(connection)


_HTTPCORE_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
)


def _translate(base: ParsedUrl, error: Exception) -> ValidatorError:
    where = str(base)
    kind: type[ValidatorError] = TransientError
    if isinstance(error, httpcore.TimeoutException):
        reason = "timed out"
    elif isinstance(error, httpcore.RemoteProtocolError):
        kind, reason = RemoteFault, f"not HTTP as it should be: {str(error)[:200]}"
    else:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
    answer_lost = not isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout)
    return kind(f"{where}: {reason}", url=where, reason=reason, answer_lost=answer_lost)
