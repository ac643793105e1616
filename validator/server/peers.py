"""The peers listener: parse, check in order of cost, call the service, sign the answer.

    connection and head limits   the server process (validator.server.listening): 100 connections, 16 KiB, 10 s
    path, method, length         nothing is read of a body that is too long or of unknown length
    sender                       a member of the current or a coming epoch, by its word so far
    token buckets                per sender and per address; a sender whose signature fails gets its token back, so
                                 nobody can spend another's
    in flight                    in all and per sender: 503 before memory or threads run out
    body, hash, signature        the sender is who it says
    replay, time                 (boot id, counter) seen before; a clock that is off is told the time

The service runs in threads of its own limiter with a deadline. Answers to a verified sender are signed, errors too.
Every refusal has a name, is counted by it and logged at debug.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio
import anyio.to_thread
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from validator.buckets import Buckets
from validator.net.http.urls import IPAddress, IPNetwork, is_allowed_net
from validator.net.peers import signing, wire
from validator.net.peers.wire import Fault
from validator.ports.peers import PeerService
from validator.protocol.codec.outcome import encode_entries
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import Disagreement, MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.protocol.hashing import keccak256
from validator.protocol.model import NIL, Address, Digest

log = structlog.get_logger(__name__)

_MS = 1_000_000
_TIMELESS = frozenset({wire.GOSSIP, wire.LATE, wire.CERTIFIED, wire.HANDSHAKE})
"""Endpoints that prove themselves or change nothing: a wrong clock is counted there, never refused."""
_FIRST_MESSAGES = 64
_REPLAY_WINDOW = 4096
_BOOTS_PER_SENDER = 64


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What one sender, one address and all together may use of this machine."""

    requests_per_s: float = 200.0
    burst: int = 1000
    in_flight: int = 32
    in_flight_per_sender: int = 8
    body_s: float = 30.0
    service_s: float = 60.0
    clock_tolerance_ms: int = 120_000
    members_for_s: float = 2.0
    allow_nets: Sequence[IPNetwork] = ()


class _Refused(Exception):
    """A request that is not served: HTTP status, a name to count by, and the reason for the caller."""

    def __init__(self, status: int, name: Fault, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.name = name
        self.reason = reason


@dataclass(slots=True)
class _Asked:
    """What is known of a request so far: sender and digest once they are verified."""

    sender: Address | None = None
    digest: Digest | None = None


def create_app(
    service: PeerService,
    key: Signer,
    context: SigningContext,
    network: Digest,
    limits: PeerLimits | None = None,
    *,
    on_refusal: Callable[[str, Address | None], None] | None = None,
    now_ms: Callable[[], int] | None = None,
) -> Starlette:
    """ASGI application of one validator's peers listener.

    ``on_refusal`` is told each refusal's name and the verified sender, if any, for metrics.
    """
    listener = _Listener(
        service,
        key,
        context,
        network,
        limits or PeerLimits(),
        on_refusal or _uncounted,
        now_ms or (lambda: time.time_ns() // _MS),
    )
    return Starlette(routes=[Route("/{path:path}", listener.handle, methods=["GET", "POST"])])


def _uncounted(name: str, sender: Address | None) -> None:
    """Where nobody counts refusals."""
    del name, sender


def _now_s() -> float:
    """The clock of this module when it is asked, not when a listener was made: tests hold it still."""
    return time.monotonic()


class _Listener:
    def __init__(
        self,
        service: PeerService,
        key: Signer,
        context: SigningContext,
        network: Digest,
        limits: PeerLimits,
        on_refusal: Callable[[str, Address | None], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._service = service
        self._key = key
        self._context = context
        self._network = network
        self._limits = limits
        self._on_refusal = on_refusal
        self._now_ms = now_ms
        self._members: Mapping[Address, str] = {}
        self._members_until = float("-inf")
        self._members_lock = anyio.Lock()
        self._of_sender = Buckets(limits.requests_per_s, limits.burst, _now_s)
        self._of_address = Buckets(limits.requests_per_s, limits.burst, _now_s)
        self._replays = _Replays()
        self._in_flight: Counter[Address | None] = Counter()
        self._threads = anyio.CapacityLimiter(limits.in_flight + 1)

    async def handle(self, request: Request) -> Response:
        asked = _Asked()
        try:
            status, body = 200, await self._serve(request, asked)
        except _Refused as refusal:
            self._on_refusal(refusal.name, asked.sender)
            log.debug("peers.refused", name=refusal.name, reason=refusal.reason, path=request.url.path)
            status, body = refusal.status, wire.encode_fault(refusal.name, refusal.reason)
        except ClientDisconnect:
            self._on_refusal(Fault.DISCONNECTED, asked.sender)
            status, body = 400, b""
        headers = {"content-type": "application/octet-stream"}
        if asked.digest is not None:
            answer = signing.response_payload(asked.digest, status, body, self._context)
            try:
                headers[signing.SIGNATURE] = await anyio.to_thread.run_sync(
                    signing.sign, answer, self._key, limiter=self._threads
                )
            except (TransientError, RemoteFault) as error:  # the key lies elsewhere
                log.warning("peers.not_signed", path=request.url.path, reason=str(error))
                status, body = 503, wire.encode_fault(Fault.BUSY, "no signature to be had")
        else:
            headers["connection"] = "close"  # what a stranger left unread of its body is not worth reading
        if status in (429, 503):
            headers["retry-after"] = "1"
        return Response(body, status, headers)

    # --- the checks, in order of cost ---

    async def _serve(self, request: Request, asked: _Asked) -> bytes:
        path = request.url.path
        if path not in wire.REQUEST_BYTES:
            raise _Refused(404, Fault.PATH, "unknown path")
        if request.method != "POST":
            raise _Refused(405, Fault.METHOD, "only POST")
        length = _read_length(request.headers.get("content-length"), wire.REQUEST_BYTES[path])
        if "transfer-encoding" in request.headers or "content-encoding" in request.headers:
            raise _Refused(411, Fault.LENGTH, "bodies come plain and with their length")
        members = await self._load_members()
        claimed = self._claim_sender(request, path, members)
        self._acquire_tokens(request, claimed, members)
        self._enter(claimed)
        try:
            with anyio.move_on_after(self._limits.body_s) as scope:
                body = await _read_body(request, length)
            if scope.cancelled_caught:
                raise _Refused(408, Fault.SLOW, f"body took longer than {self._limits.body_s:g} s")
            if claimed is None:
                asked.digest = NIL
            else:
                self._verify(request, path, claimed, body, asked)
            return await self._call(path, asked.sender, body)
        finally:
            self._leave(claimed)

    def _claim_sender(self, request: Request, path: str, members: Mapping[Address, str]) -> Address | None:
        if path == wire.HANDSHAKE and signing.SENDER not in request.headers:
            return None  # anybody may ask who we are
        try:
            sender = signing.read_sender(request.headers)
        except MalformedInput as error:
            raise _Refused(401, Fault.HEADERS, str(error)) from error
        if sender not in members:
            raise _Refused(403, Fault.STRANGER, "not a member of the committee")
        return sender

    def _acquire_tokens(self, request: Request, sender: Address | None, members: Mapping[Address, str]) -> None:
        address = _client_address(request)
        share = 1
        if address is not None and is_allowed_net(address, self._limits.allow_nets):
            share = max(1, len(members))  # a private network, or a terminator in front: everybody comes from there
        if not self._of_address.acquire(address, share=share):
            raise _Refused(429, Fault.RATE, "too many requests from this address")
        if sender is not None and not self._of_sender.acquire(sender):
            raise _Refused(429, Fault.RATE, "too many requests of this member")

    def _enter(self, sender: Address | None) -> None:
        if self._in_flight.total() >= self._limits.in_flight:
            raise _Refused(503, Fault.BUSY, "too many requests in flight")
        if self._in_flight[sender] >= self._limits.in_flight_per_sender:
            raise _Refused(503, Fault.BUSY, "too many requests of this member in flight")
        self._in_flight[sender] += 1

    def _leave(self, sender: Address | None) -> None:
        self._in_flight[sender] -= 1
        if not self._in_flight[sender]:
            del self._in_flight[sender]

    def _verify(self, request: Request, path: str, claimed: Address, body: bytes, asked: _Asked) -> None:
        """Signature, then replay and time. From here on the sender is known and answers are signed."""
        try:
            stamp = signing.read_stamp(request.headers)
            payload = signing.request_payload(stamp, path, self._key.address, body, self._network, self._context)
            signing.verify(payload, request.headers.get(signing.SIGNATURE, ""), claimed)
        except MalformedInput as error:
            self._of_sender.give_back(claimed)
            raise _Refused(401, Fault.SIGNATURE, str(error)) from error
        asked.sender, asked.digest = claimed, keccak256(payload)
        if not self._replays.admit(stamp):
            raise _Refused(409, Fault.REPLAY, "this boot id and counter were seen before")
        now_ms = self._now_ms()
        if abs(stamp.time_ms - now_ms) > self._limits.clock_tolerance_ms:
            if path not in _TIMELESS:
                raise _Refused(409, Fault.TIME, str(now_ms))
            self._on_refusal(Fault.TIME, claimed)  # counted, yet served

    # --- the service ---

    async def _load_members(self) -> Mapping[Address, str]:
        async with self._members_lock:
            if time.monotonic() >= self._members_until:
                try:
                    self._members = await anyio.to_thread.run_sync(self._service.members, limiter=self._threads)
                except ValidatorError as error:
                    raise _Refused(503, Fault.TRANSIENT, str(error)) from error
                self._members_until = time.monotonic() + self._limits.members_for_s
            return self._members

    async def _call(self, path: str, sender: Address | None, body: bytes) -> bytes:
        with anyio.move_on_after(self._limits.service_s):
            try:
                return await anyio.to_thread.run_sync(
                    _perform, self._service, path, sender, body, limiter=self._threads, abandon_on_cancel=True
                )
            except MalformedInput as error:
                raise _Refused(400, Fault.MALFORMED, str(error)) from error
            except RemoteFault as error:
                raise _Refused(422, Fault.REFUSED, str(error)) from error
            except Disagreement as error:
                raise _Refused(422, Fault.DISAGREEMENT, str(error)) from error
            except ValidatorError as error:
                raise _Refused(503, Fault.TRANSIENT, str(error)) from error
        raise _Refused(503, Fault.BUSY, f"no answer within {self._limits.service_s:g} s")


def _perform(service: PeerService, path: str, sender: Address | None, body: bytes) -> bytes:
    """Decode, call, encode: in a thread, since all three may take a while."""
    if path == wire.HANDSHAKE:
        return wire.encode_handshake(service.handshake(sender))
    if sender is None:
        raise MalformedInput("sender", "missing")
    if path == wire.GOSSIP:
        gossip = wire.decode_gossip(body)
        try:
            service.receive(sender, gossip)
        except MalformedInput as error:
            raise _Refused(400, Fault.FORGED, str(error)) from error
        return b""
    if path == wire.LATE:
        service.receive_late(sender, wire.decode_page(body, wire.MAX_LEAVES))
        return b""
    if path == wire.MISSING:
        return wire.encode_gossip(next(wire.split_gossip(service.missing(sender, wire.decode_held(body)))))
    if path == wire.ENTRIES:
        return encode_entries(service.entries(sender, wire.decode_set_root(body)))
    if path == wire.RECONCILE:
        set_root, parts, message, strong = wire.decode_reconcile(body)
        return service.reconcile(sender, set_root, parts, message, strong=strong)
    if path == wire.BODY:
        return service.body(sender, wire.decode_digest(body))
    if path == wire.OBSERVATIONS:
        return wire.encode_gossip(service.observations(sender, *wire.decode_named(body)))
    if path == wire.CERTIFIED:
        return wire.encode_certified(service.certified(sender, wire.decode_instances(body)))
    return _load_page(service, sender, body)


def _load_page(service: PeerService, sender: Address, body: bytes) -> bytes:
    """As many of the messages asked for as fit one page, loaded in runs so that memory stays near a page."""
    set_root, leaves = wire.decode_leaves(body)
    page: list[bytes] = []
    size, at, run = 0, 0, _FIRST_MESSAGES
    while at < len(leaves):
        for message in service.messages(sender, set_root, leaves[at : at + run]):
            if page and size + len(message) > wire.PAGE_BYTES:
                return wire.encode_page(page)
            page.append(message)
            size += len(message)
        at += run
        average = size // len(page) + 1 if page else 1
        run = max(1, min(wire.MAX_LEAVES, (wire.PAGE_BYTES - size) // average))
    return wire.encode_page(page)


def _read_length(text: str | None, limit: int) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise _Refused(411, Fault.LENGTH, "content-length is missing or not a number")
    if int(text) > limit:
        raise _Refused(413, Fault.LENGTH, f"{int(text)} bytes exceed the limit of {limit}")
    return int(text)


async def _read_body(request: Request, length: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > length:
            raise _Refused(413, Fault.LENGTH, "body is longer than announced")
    if len(body) != length:
        raise _Refused(400, Fault.LENGTH, "body is shorter than announced")
    return bytes(body)


def _client_address(request: Request) -> IPAddress | None:
    if request.client is None:
        return None
    try:
        return ipaddress.ip_address(request.client.host)
    except ValueError:
        return None


class _Replays:
    """Counters seen, per sender and boot id: the newest 4096 of each of the sender's last 64 processes.

    A counter below that window counts as seen. A process that fell out of memory is guarded by the time limit alone.
    """

    def __init__(self) -> None:
        self._seen: dict[Address, OrderedDict[int, tuple[int, int]]] = {}

    def admit(self, stamp: signing.Stamp) -> bool:
        """Whether the stamp is new; remembers it."""
        boots = self._seen.setdefault(stamp.sender, OrderedDict())
        highest, bits = boots.pop(stamp.boot_id, (stamp.counter, 0))
        if stamp.counter > highest:
            bits = bits << min(stamp.counter - highest, _REPLAY_WINDOW) & ((1 << _REPLAY_WINDOW) - 1)
            highest = stamp.counter
        offset = highest - stamp.counter
        new = offset < _REPLAY_WINDOW and not bits >> offset & 1
        if new:
            bits |= 1 << offset
        boots[stamp.boot_id] = (highest, bits)
        if len(boots) > _BOOTS_PER_SENDER:
            boots.popitem(last=False)
        return new
