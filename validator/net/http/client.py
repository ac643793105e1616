"""HTTP to addresses that strangers name: URLs are checked, connections pinned, bytes, time and memory bounded.

Node metadata, and so every broker and peer URL, is hostile input (design: committee, identities). The rules live here
once and both clients use them. What happens to one request:

    check_url      scheme, port, length, no user info, no query: nothing is looked up for a URL that breaks a rule
    resolve        one look-up; every address must be global unicast, or lie in a network that the operator allows
    BoundedClient  connects to the very address that was checked; the name is kept for Host, SNI and certificate
    decompress     our own, from raw bytes, with bounded output per step

Built on httpcore, the engine below httpx, since httpx's own layer would have to be switched off piece by piece:
proxies from the environment, redirects, cookies, and a content decoding that hands over 64 MiB at once.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import certifi
import httpcore
import zstandard

from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, ValidatorError

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], Sequence[str]]
"""(host, port) to the texts of all its addresses; raises OSError."""

MAX_URL_CHARS = 256
MAX_TARGET_CHARS = 8 << 10
MAX_ADDRESSES = 16
MAX_CONNECTIONS_PER_PORT = 2
MAX_CONNECTIONS_PER_ADDRESS = 8
FLOOR_BYTES_PER_S = 64 << 10
FLOOR_AFTER_S = 10.0
MAX_ZSTD_WINDOW = 8 << 20
IDLE_S = 15.0
_STEP = 64 << 10
_ZSTD_SLICE = 64
_MAX_LOOKUPS = 16

# Everything in the IANA special-purpose registries that is not globally reachable, plus multicast. Listed here since
# the ipaddress module's own opinion differs between Python 3.11 and 3.13.
_NOT_GLOBAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


# --- URLs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A base URL that keeps the rules.

    ``path`` has no slash at its end; ``host`` is lower-case, an IPv6 address without brackets.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host header: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if (self.scheme, self.port) == ("https", 443) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """For logs: scheme and authority, never the path."""
        return f"{self.scheme}://{self.authority}"


def check_url(url: str, *, allow_http: bool, allow_nets: Sequence[IPNetwork] = ()) -> ParsedUrl:
    """Check a base URL from node metadata by its text alone; nothing is looked up.

    A literal address is judged at once. ``allow_http`` is for development networks.

    Raises:
        MalformedInput: field "url", with the broken rule.
    """

    def refuse(reason: str) -> MalformedInput:
        return MalformedInput("url", reason)

    if not isinstance(url, str) or not url:
        raise refuse("empty or not a text")
    if len(url) > MAX_URL_CHARS:
        raise refuse(f"{len(url)} characters exceed the limit of {MAX_URL_CHARS}")
    if any(not "!" <= c <= "~" or c in '\\"<>^`{|}' for c in url):
        raise refuse("a character that no URL has")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("https", "http"):
        raise refuse("neither https nor http")
    if scheme == "http" and not allow_http:
        raise refuse("plain http is for development networks only")
    if "?" in rest or "#" in rest:
        raise refuse("a base URL has no query and no fragment")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise refuse("user info is not allowed")
    host, port = _split_authority(authority, scheme)
    path = (slash + path).rstrip("/")
    if any(part in (".", "..") for part in path.split("/")):
        raise refuse("dots in the path")
    literal = _literal(host)
    if literal is not None:
        _require_allowed(literal, host, allow_nets)
        host = str(literal)
    else:
        _require_name(host)
    return ParsedUrl(scheme, host, port, path)


def _split_authority(authority: str, scheme: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, after = authority[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise MalformedInput("url", "brackets do not close around an IPv6 address")
        port_text: str | None = after[1:] if after else None
        if _literal(host) is None or ":" not in host:
            raise MalformedInput("url", "brackets hold no IPv6 address")
    else:
        host, colon, text = authority.partition(":")
        port_text = text if colon else None
    if port_text is None:
        port = 443 if scheme == "https" else 80
    elif port_text.isascii() and port_text.isdecimal() and len(port_text) <= 5:
        port = int(port_text)
    else:
        raise MalformedInput("url", "port is not a number")
    if port != 443 and not 1024 <= port <= 65535:
        raise MalformedInput("url", f"port {port} is neither 443 nor 1024 to 65535")
    return host.lower(), port


def _literal(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _require_name(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    allowed = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
    if any(not 0 < len(label) <= 63 or set(label) - allowed for label in labels):
        raise MalformedInput("url", "host is neither a name nor an address")
    last = labels[-1]
    if last.isdecimal() or last.startswith("0x"):
        raise MalformedInput("url", "host is a number that is not an address in its usual form")


def is_global_unicast(address: IPAddress) -> bool:
    """Whether the public Internet routes to it; IPv4-mapped, NAT64 and 6to4 forms are judged by what they wrap."""
    inner = unwrap_address(address)
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _GLOBAL_V6:
        return False
    return not any(inner.version == net.version and inner in net for net in _NOT_GLOBAL)


def unwrap_address(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv4-mapped, NAT64 (64:ff9b::/96) or 6to4 (2002::/16) address stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _SIX_TO_FOUR:
            return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


def is_allowed_net(address: IPAddress, allow_nets: Sequence[IPNetwork]) -> bool:
    """Whether the operator allowed the (unwrapped) address by name."""
    inner = unwrap_address(address)
    return any(inner.version == net.version and inner in net for net in allow_nets)


def _require_allowed(address: IPAddress, host: str, allow_nets: Sequence[IPNetwork]) -> None:
    scoped = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    if scoped or not (is_allowed_net(address, allow_nets) or is_global_unicast(address)):
        raise MalformedInput("url", f"{address} is not a global unicast address", host=host, address=str(address))


# --- look-up --------------------------------------------------------------------------------------


def resolve(
    url: ParsedUrl,
    *,
    allow_nets: Sequence[IPNetwork] = (),
    timeout_s: float = 5.0,
    resolver: Resolver | None = None,
) -> tuple[IPAddress, ...]:
    """Look the host up once; the answer's addresses in order, every one of them checked.

    Raises:
        MalformedInput: one of the addresses is neither global unicast nor allowed: the whole name is refused.
        TransientError: the name has no address now, or the look-up took too long.
    """
    literal = _literal(url.host)
    if literal is not None:
        _require_allowed(literal, url.host, allow_nets)
        return (literal,)
    texts = _look_up(url.host, url.port, timeout_s, resolver or _system_resolver)
    addresses: list[IPAddress] = []
    for text in texts[:MAX_ADDRESSES]:
        address = _literal(text)
        if address is None:
            raise TransientError(f"{url.host}: the look-up answered {text!r}", host=url.host)
        _require_allowed(address, url.host, allow_nets)
        if address not in addresses:
            addresses.append(address)
    if not addresses:
        raise TransientError(f"{url.host}: no address", host=url.host)
    return tuple(addresses)


def _system_resolver(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(item[4][0]) for item in found]


_lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)


def _look_up(host: str, port: int, timeout_s: float, resolver: Resolver) -> list[str]:
    """getaddrinfo knows no time limit, so it runs in a thread of its own that is left behind when it hangs."""
    if not _lookups.acquire(timeout=timeout_s):
        raise TransientError(f"{host}: too many look-ups hang", host=host)
    answer: list[list[str] | Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            answer.append(list(resolver(host, port)))
        except Exception as error:
            answer.append(error)
        finally:
            _lookups.release()
            done.set()

    threading.Thread(target=run, name="look-up", daemon=True).start()
    if not done.wait(timeout_s):
        raise TransientError(f"{host}: look-up took longer than {timeout_s:g} s", host=host)
    first = answer[0]
    if isinstance(first, OSError | UnicodeError):
        raise TransientError(f"{host}: look-up failed: {first}", host=host) from first
    if isinstance(first, Exception):
        raise first
    return first


# --- decompression --------------------------------------------------------------------------------


def decompress_bounded(raw: Iterable[bytes], encoding: str, max_bytes: int) -> Iterator[bytes]:
    """Decode a body (identity, gzip, zstd) piece by piece, never more than 64 KiB at a time.

    Raises:
        MalformedInput: field "body": an unknown encoding, more than ``max_bytes`` of output, broken or cut short.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        pieces: Iterator[bytes] = iter(raw)
    elif encoding in ("gzip", "x-gzip"):
        pieces = _gunzip(raw)
    elif encoding == "zstd":
        pieces = _unzstd(raw)
    else:
        raise MalformedInput("body", f"encoding {encoding[:40]!r} was not asked for")
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise MalformedInput("body", f"more than {max_bytes} bytes", bytes=total)
        if piece:
            yield piece


def _gunzip(raw: Iterable[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    started = False
    for chunk in raw:
        pending = chunk
        while pending:
            if decoder.eof:
                decoder = zlib.decompressobj(wbits=31)
            started = True
            try:
                piece = decoder.decompress(pending, _STEP)
            except zlib.error as error:
                raise MalformedInput("body", f"broken gzip: {error}") from error
            yield piece
            pending = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if not pending and len(piece) == _STEP and not decoder.eof:
                yield from _drain_gzip(decoder)
    if started and not decoder.eof:
        raise MalformedInput("body", "gzip is cut short", cut=True)


def _drain_gzip(decoder: zlib._Decompress) -> Iterator[bytes]:
    """Output that zlib holds back although it has taken all input."""
    while True:
        piece = decoder.decompress(b"", _STEP)
        if not piece:
            return
        yield piece


def _unzstd(raw: Iterable[bytes]) -> Iterator[bytes]:
    """Frame after frame. A frame may expand 128 KiB from 4 bytes, and the library knows no output limit that holds
    (it trusts the size a frame names), so the input is fed in slices whose worst case is 2 MiB."""
    context = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
    decoder = context.decompressobj(read_across_frames=False)
    started = False
    for chunk in raw:
        for at in range(0, len(chunk), _ZSTD_SLICE):
            pending = chunk[at : at + _ZSTD_SLICE]
            while pending:
                if decoder.eof:
                    decoder = context.decompressobj(read_across_frames=False)
                started = True
                try:
                    piece = decoder.decompress(pending)
                except zstandard.ZstdError as error:
                    raise MalformedInput("body", f"broken zstd: {error}") from error
                yield piece
                pending = decoder.unused_data if decoder.eof else b""
    if started and not decoder.eof:
        raise MalformedInput("body", "zstd is cut short", cut=True)


# --- connections ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Budget:
    """Until when the request that uses a connection may run; monotonic seconds."""

    until: float = 0.0

    def cap(self, timeout: float | None) -> float:
        """Seconds the next blocking call may take. Raises httpcore.ReadTimeout when nothing is left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("deadline")
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    """A socket whose every call ends within the deadline of the request that uses it, TLS handshake included."""

    def __init__(self, sock: socket.socket, budget: _Budget) -> None:
        self._sock = sock
        self._budget = budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._sock.settimeout(self._budget.cap(timeout))
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:
            try:
                self._sock.settimeout(self._budget.cap(timeout))
                view = view[self._sock.send(view) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            self._sock.settimeout(self._budget.cap(timeout))
            return _Stream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._budget)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, ValueError) as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            if self._sock.fileno() < 0:
                return True
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0))
        if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket):
            return self._sock
        return None


class _PinnedBackend(httpcore.NetworkBackend):
    """Connects to one checked address, whatever host the request names."""

    def __init__(self, address: IPAddress, budget: _Budget) -> None:
        self._address = address
        self._budget = budget

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del host, local_address, socket_options
        try:
            sock = socket.create_connection((str(self._address), port), timeout=self._budget.cap(timeout))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Stream(sock, self._budget)


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection, used by one request at a time."""

    base: tuple[str, str, int]
    address: IPAddress
    budget: _Budget
    http: httpcore.HTTPConnection
    used: bool = False
    idle_since: float = 0.0

    @property
    def place(self) -> tuple[IPAddress, int]:
        return (self.address, self.base[2])


class _Connections:
    """Open connections of a client: reused while fresh, and counted per (address, port) and per address."""

    def __init__(self, ssl_context: ssl.SSLContext | None, allow_nets: Sequence[IPNetwork]) -> None:
        self._ssl = ssl_context or trust()
        self._allow_nets = allow_nets
        self._change = threading.Condition()
        self._open: list[_Connection] = []
        self._idle: list[_Connection] = []

    def take_idle(self, base: tuple[str, str, int]) -> _Connection | None:
        """An idle connection to the same scheme, name and port that is still good."""
        with self._change:
            return self._find_idle(base)

    def open(self, base: tuple[str, str, int], address: IPAddress, until: float, *, fresh: bool = False) -> _Connection:
        """Count a new connection in, waiting for a free place; it connects with its first request.

        While waiting, an idle one to the same base will do, unless ``fresh``.

        Raises:
            TransientError: no place became free in time.
        """
        with self._change:
            while True:
                idle = None if fresh else self._find_idle(base)
                if idle is not None:
                    return idle
                if self._has_room(address, base[2]):
                    break
                left = until - time.monotonic()
                if left <= 0:
                    raise TransientError(f"{address}: all connections to this address are in use", address=str(address))
                self._change.wait(left)
            budget = _Budget(until)
            http = httpcore.HTTPConnection(
                httpcore.Origin(base[0].encode(), _host_bytes(base[1]), base[2]),
                ssl_context=self._ssl,
                network_backend=_PinnedBackend(address, budget),
            )
            connection = _Connection(base, address, budget, http)
            self._open.append(connection)
            return connection

    def _find_idle(self, base: tuple[str, str, int]) -> _Connection | None:
        self._sweep()
        for connection in reversed(self._idle):
            if connection.base == base:
                self._idle.remove(connection)
                return connection
        return None

    def give_back(self, connection: _Connection) -> None:
        with self._change:
            if connection.http.is_idle():
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                self._change.notify_all()
                return
        self.discard(connection)

    def discard(self, connection: _Connection) -> None:
        connection.http.close()
        with self._change:
            if connection in self._open:
                self._open.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            for connection in list(self._idle):
                self._drop(connection)

    def _has_room(self, address: IPAddress, port: int) -> bool:
        while True:
            at_port = [c for c in self._open if c.place == (address, port)]
            at_address = [c for c in self._open if c.address == address]
            free_of_limit = is_allowed_net(address, self._allow_nets)
            crowd = at_port if len(at_port) >= MAX_CONNECTIONS_PER_PORT else []
            if not crowd and not free_of_limit and len(at_address) >= MAX_CONNECTIONS_PER_ADDRESS:
                crowd = at_address
            if not crowd:
                return True
            spare = next((c for c in crowd if c in self._idle), None)
            if spare is None:
                return False
            self._drop(spare)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._idle):
            if now - connection.idle_since > IDLE_S or connection.http.has_expired():
                self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        connection.http.close()
        self._idle.remove(connection)
        self._open.remove(connection)
        self._change.notify_all()


def trust(extra: Path | None = None) -> ssl.SSLContext:
    """TLS for a client: the public authorities, and the certificates of a PEM file beside them.

    Raises:
        OSError: the file cannot be read or holds none.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    if extra is not None:
        context.load_verify_locations(cafile=extra)
    return context


def _host_bytes(host: str) -> bytes:
    return (f"[{host}]" if ":" in host else host).encode()


# --- the client -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, decompressed. Header names are lower-case; of repeated ones the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes


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
    """HTTP/1.1 client for URLs of strangers. Thread-safe; share one per process so that its limits hold.

    Every request has a deadline that covers waiting for a connection, look-up, TLS, headers and body. A redirect is a
    fault. An answer slower than 64 KiB/s ten seconds after its head is cut off.
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
    ) -> None:
        self._allow_nets = tuple(allow_nets)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._floor_after_s = floor_after_s
        self._resolver = resolver
        self._user_agent = user_agent
        self._connections = _Connections(ssl_context, self._allow_nets)

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
        fields = [("Host", base.authority), ("User-Agent", self._user_agent), ("Accept-Encoding", "zstd, gzip")]
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
            httpcore.URL(
                scheme=base.scheme.encode(), host=_host_bytes(base.host), port=base.port, target=path.encode()
            ),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in fields],
            content=body,
            extensions={"timeout": timeouts},
        )

    def _send(self, base: ParsedUrl, request: httpcore.Request, until: float) -> tuple[_Connection, httpcore.Response]:
        """Over an idle connection if there is one that still answers, else over a new one to a checked address."""
        key = (base.scheme, base.host, base.port)
        connection = self._connections.take_idle(key)
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
        self, base: ParsedUrl, connection: _Connection, request: httpcore.Request, until: float
    ) -> httpcore.Response | None:
        """None if the other side closed the connection while it was idle: a new one may do better."""
        try:
            return self._exchange(connection, request, until)
        except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
            return None
        except _HTTPCORE_ERRORS as error:
            raise _translate(base, error) from error

    def _exchange(self, connection: _Connection, request: httpcore.Request, until: float) -> httpcore.Response:
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
        if 300 <= response.status < 400 and response.status != 304:
            raise RemoteFault(f"{base}: redirects are not followed", url=str(base), status=response.status)
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
            raise MalformedInput("body", f"{length[:20]} bytes announced, {max_bytes} allowed", url=str(base))
        raw = _bounded(base, response.iter_stream(), max_bytes, self._floor_after_s)
        return OpenAnswer(
            response.status,
            headers,
            decompress_bounded(raw, headers.get("content-encoding", ""), max_bytes),
            framed="content-length" in headers or "transfer-encoding" in headers,
        )

    def _finish(self, connection: _Connection, response: httpcore.Response) -> None:
        try:
            response.close()
        except _HTTPCORE_ERRORS:
            self._connections.discard(connection)
            return
        self._connections.give_back(connection)


def _bounded(base: ParsedUrl, raw: Iterable[bytes], max_bytes: int, floor_after_s: float) -> Iterator[bytes]:
    """Raw bytes of a body with the limits that hold before decompression: size, and the floor of speed."""
    started = time.monotonic()
    total = 0
    for chunk in raw:
        total += len(chunk)
        if total > max_bytes + _STEP:  # a compressed body may be a little larger than what it holds, not more
            raise MalformedInput("body", f"more than {max_bytes} bytes", url=str(base))
        took = time.monotonic() - started
        if took > floor_after_s and total < took * FLOOR_BYTES_PER_S:
            raise RemoteFault(
                f"{base}: {total} bytes in {took:.0f} s are below the floor of 64 KiB/s", url=str(base), bytes=total
            )
        yield chunk


_HTTPCORE_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
)


def _translate(base: ParsedUrl, error: Exception) -> ValidatorError:
    where = str(base)
    if isinstance(error, httpcore.TimeoutException):
        return TransientError(f"{where}: timed out", url=where)
    if isinstance(error, httpcore.RemoteProtocolError):
        return RemoteFault(f"{where}: not HTTP as it should be: {str(error)[:200]}", url=where)
    return TransientError(f"{where}: {type(error).__name__}: {str(error)[:200]}", url=where)
