"""One side of signed requests: check in order of cost, call what answers, sign the answer.

    connection and head limits   the server process: connections, head size, time for the head
    path, method, length         nothing is read of a body that is too long or of unknown length
    sender                       one whom the door is open to, by its word so far
    token buckets                per sender and per address; a sender whose signature fails gets its token back, so
                                 nobody can spend another's
    in flight                    in all and per sender: 503 before memory or threads run out
    body, hash, signature        the sender is who it says
    replay, time                 (boot id, counter) seen before; a clock that is off is told the time

What answers runs in threads of its own limiter with a deadline. Answers to a verified sender are signed, errors too.
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from validator.buckets import Buckets
from validator.net.http.urls import IPAddress, IPNetwork, is_allowed_net
from validator.net.signed import signing
from validator.net.signed.faults import Fault, encode_fault
from validator.net.signed.signing import Channel
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import Disagreement, MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.protocol.hashing import keccak256
from validator.protocol.model import NIL, Address, Digest

log = structlog.get_logger(__name__)

_MS = 1_000_000
_REPLAY_WINDOW = 4096
_BOOTS_PER_SENDER = 64
_STRANGERS = "strangers"
"""All of them together: a new key costs nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
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


@dataclass(frozen=True, slots=True)
class Door:
    """The endpoints: most bytes of a request's body by path, and what else is special of some of them."""

    request_bytes: Mapping[str, int]
    timeless: frozenset[str] = frozenset()
    """They prove themselves or change nothing: a wrong clock is counted there, never refused."""
    anonymous: frozenset[str] = frozenset()
    """They may be asked without a name."""
    strangers: frozenset[str] = frozenset()
    """They may be asked by any key, or by those that ``admitted`` names; what its address has used counts, and all
    strangers together are one sender."""


class Refused(Exception):
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


def _uncounted(name: str, sender: Address | None) -> None:
    """Where nobody counts refusals."""
    del name, sender


def _now_s() -> float:
    """The clock of this module when it is asked, not when a listener was made: tests hold it still."""
    return time.monotonic()


class SignedListener:
    """``handle`` answers one request. One per process and channel: it remembers what it has seen."""

    def __init__(
        self,
        door: Door,
        members: Callable[[], Mapping[Address, str]],
        perform: Callable[[str, Address | None, bytes], bytes],
        key: Signer,
        channel: Channel,
        limits: Limits | None = None,
        *,
        admitted: Callable[[], frozenset[Address]] | None = None,
        on_refusal: Callable[[str, Address | None], None] | None = None,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """``members``: who is served, asked every few seconds, and with it ``admitted``: which strangers may ask what
        strangers may (None: all); ``perform`` answers (path, sender, body). All run in threads and raise errors of the
        tree, which become refusals. ``on_refusal`` is told each refusal's name and the
        verified sender, if any, for metrics."""
        limits = limits or Limits()
        self._door = door
        self._load = members
        self._load_admitted = admitted
        self._perform = perform
        self._key = key
        self._channel = channel
        self._limits = limits
        self._on_refusal = on_refusal or _uncounted
        self._now_ms = now_ms or (lambda: time.time_ns() // _MS)
        self._members: Mapping[Address, str] = {}
        self._admitted: frozenset[Address] = frozenset()
        self._members_until = float("-inf")
        self._members_lock = anyio.Lock()
        self._of_sender = Buckets(limits.requests_per_s, limits.burst, _now_s)
        self._of_address = Buckets(limits.requests_per_s, limits.burst, _now_s)
        self._replays = _Replays()
        self._in_flight: Counter[object] = Counter()
        self._threads = anyio.CapacityLimiter(limits.in_flight + 1)

    async def handle(self, request: Request) -> Response:
        asked = _Asked()
        try:
            status, body = 200, await self._serve(request, asked)
        except Refused as refusal:
            self._on_refusal(refusal.name, asked.sender)
            log.debug("request.refused", name=refusal.name, reason=refusal.reason, path=request.url.path)
            status, body = refusal.status, encode_fault(refusal.name, refusal.reason)
        except ClientDisconnect:
            self._on_refusal(Fault.DISCONNECTED, asked.sender)
            status, body = 400, b""
        headers = {"content-type": "application/octet-stream"}
        if asked.digest is not None:
            answer = self._channel.response_payload(asked.digest, status, body)
            try:
                headers[signing.SIGNATURE] = await anyio.to_thread.run_sync(
                    signing.sign, answer, self._key, limiter=self._threads
                )
            except (TransientError, RemoteFault) as error:  # the key lies elsewhere
                log.warning("answer.not_signed", path=request.url.path, reason=str(error))
                status, body = 503, encode_fault(Fault.BUSY, "no signature to be had")
        else:
            headers["connection"] = "close"  # what a stranger left unread of its body is not worth reading
        if status in (429, 503):
            headers["retry-after"] = "1"
        return Response(body, status, headers)

    # --- the checks, in order of cost ---

    async def _serve(self, request: Request, asked: _Asked) -> bytes:
        path = request.url.path
        if path not in self._door.request_bytes:
            raise Refused(404, Fault.PATH, "unknown path")
        if request.method != "POST":
            raise Refused(405, Fault.METHOD, "only POST")
        length = _read_length(request.headers.get("content-length"), self._door.request_bytes[path])
        if "transfer-encoding" in request.headers or "content-encoding" in request.headers:
            raise Refused(411, Fault.LENGTH, "bodies come plain and with their length")
        members = await self._load_members()
        claimed = self._claim_sender(request, path, members)
        self._acquire_tokens(request, claimed, members)
        who = claimed if claimed is None or claimed in members else _STRANGERS
        self._enter(who)
        try:
            with anyio.move_on_after(self._limits.body_s) as scope:
                body = await _read_body(request, length)
            if scope.cancelled_caught:
                raise Refused(408, Fault.SLOW, f"body took longer than {self._limits.body_s:g} s")
            if claimed is None:
                asked.digest = NIL
            else:
                self._verify(request, path, claimed, who, body, asked)
            return await self._call(path, asked.sender, body)
        finally:
            self._leave(who)

    def _claim_sender(self, request: Request, path: str, members: Mapping[Address, str]) -> Address | None:
        if path in self._door.anonymous and signing.SENDER not in request.headers:
            return None  # anybody may ask who we are
        try:
            sender = signing.read_sender(request.headers)
        except MalformedInput as error:
            raise Refused(401, Fault.HEADERS, str(error)) from error
        if sender not in members:
            if path in self._door.strangers and (self._load_admitted is None or sender in self._admitted):
                return sender
            raise Refused(403, Fault.STRANGER, "not a member")
        return sender

    def _acquire_tokens(self, request: Request, sender: Address | None, members: Mapping[Address, str]) -> None:
        address = _client_address(request)
        share = 1
        if address is not None and is_allowed_net(address, self._limits.allow_nets):
            share = max(1, len(members))  # a private network, or a terminator in front: everybody comes from there
        if not self._of_address.acquire(address, share=share):
            raise Refused(429, Fault.RATE, "too many requests from this address")
        if sender is not None and sender in members and not self._of_sender.acquire(sender):
            raise Refused(429, Fault.RATE, "too many requests of this member")

    def _enter(self, sender: object) -> None:
        if self._in_flight.total() >= self._limits.in_flight:
            raise Refused(503, Fault.BUSY, "too many requests in flight")
        if self._in_flight[sender] >= self._limits.in_flight_per_sender:
            raise Refused(503, Fault.BUSY, "too many requests of this member in flight")
        self._in_flight[sender] += 1

    def _leave(self, sender: object) -> None:
        self._in_flight[sender] -= 1
        if not self._in_flight[sender]:
            del self._in_flight[sender]

    def _verify(self, request: Request, path: str, claimed: Address, who: object, body: bytes, asked: _Asked) -> None:
        """Signature, then replay and time. From here on the sender is known and answers are signed."""
        try:
            stamp = signing.read_stamp(request.headers)
            payload = self._channel.request_payload(stamp, path, self._key.address, body)
            signing.verify(payload, request.headers.get(signing.SIGNATURE, ""), claimed)
        except MalformedInput as error:
            self._of_sender.give_back(who)
            raise Refused(401, Fault.SIGNATURE, str(error)) from error
        asked.sender, asked.digest = claimed, keccak256(payload)
        if not self._replays.admit(stamp):
            raise Refused(409, Fault.REPLAY, "this boot id and counter were seen before")
        now_ms = self._now_ms()
        if abs(stamp.time_ms - now_ms) > self._limits.clock_tolerance_ms:
            if path not in self._door.timeless:
                raise Refused(409, Fault.TIME, str(now_ms))
            self._on_refusal(Fault.TIME, claimed)  # counted, yet served

    # --- the service ---

    async def _load_members(self) -> Mapping[Address, str]:
        async with self._members_lock:
            if time.monotonic() >= self._members_until:
                try:
                    self._members = await anyio.to_thread.run_sync(self._load, limiter=self._threads)
                    if self._load_admitted is not None:
                        self._admitted = await anyio.to_thread.run_sync(self._load_admitted, limiter=self._threads)
                except ValidatorError as error:
                    raise Refused(503, Fault.TRANSIENT, str(error)) from error
                self._members_until = time.monotonic() + self._limits.members_for_s
            return self._members

    async def _call(self, path: str, sender: Address | None, body: bytes) -> bytes:
        with anyio.move_on_after(self._limits.service_s):
            try:
                return await anyio.to_thread.run_sync(
                    self._perform, path, sender, body, limiter=self._threads, abandon_on_cancel=True
                )
            except MalformedInput as error:
                raise Refused(400, Fault.MALFORMED, str(error)) from error
            except RemoteFault as error:
                raise Refused(422, Fault.REFUSED, str(error)) from error
            except Disagreement as error:
                raise Refused(422, Fault.DISAGREEMENT, str(error)) from error
            except ValidatorError as error:
                raise Refused(503, Fault.TRANSIENT, str(error)) from error
        raise Refused(503, Fault.BUSY, f"no answer within {self._limits.service_s:g} s")


def _read_length(text: str | None, limit: int) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Refused(411, Fault.LENGTH, "content-length is missing or not a number")
    if int(text) > limit:
        raise Refused(413, Fault.LENGTH, f"{int(text)} bytes exceed the limit of {limit}")
    return int(text)


async def _read_body(request: Request, length: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > length:
            raise Refused(413, Fault.LENGTH, "body is longer than announced")
    if len(body) != length:
        raise Refused(400, Fault.LENGTH, "body is shorter than announced")
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
