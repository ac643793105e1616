from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.fakes.peer_service import FakePeerService
from validator.net.peers import wire
from validator.net.signed import signing
from validator.net.signed.faults import decode_fault
from validator.net.signed.listener import Limits
from validator.net.signed.pages import encode_page
from validator.net.signed.signing import Channel, Stamp
from validator.ports.peers import Gossip
from validator.protocol.codec.secp256k1 import Signer, SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import Disagreement, MalformedInput, RemoteFault, TransientError, UnknownOutcome
from validator.protocol.hashing import hash_object, keccak256
from validator.protocol.model import NIL, Address, Digest
from validator.server.peers import create_app

CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
NETWORK = Digest(b"\x09" * 32)
CHANNEL = Channel(wire.PURPOSE, CONTEXT, NETWORK)
SENDER, SERVER, STRANGER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
NOW_MS = 1_700_000_000_000
BODY = wire.encode_digest(hash_object(b"body"))
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class Listener:
    """The application with a fake service, a fixed clock, and its refusals; asks in process, without sockets."""

    def __init__(self, signer: Signer = SERVER, **limits: Any) -> None:
        self.service = FakePeerService(SERVER.address, {SENDER.address: "", SERVER.address: ""})
        self.service.known_bodies[hash_object(b"body")] = b"body"
        self.refusals: list[tuple[str, Address | None]] = []
        self.app = create_app(
            self.service,
            signer,
            CONTEXT,
            NETWORK,
            Limits(**limits),
            on_refusal=lambda name, who: self.refusals.append((name, who)),
            now_ms=lambda: NOW_MS,
        )
        self.counter = 0

    def stamp(self, **fields: Any) -> Stamp:
        self.counter += 1
        return replace(Stamp(SENDER.address, 7, self.counter, NOW_MS), **fields)

    async def ask(
        self,
        path: str = wire.BODY,
        body: bytes = BODY,
        *,
        stamp: Stamp | None = None,
        key: SigningKey = SENDER,
        method: str = "POST",
        headers: dict[str, str | None] | None = None,
        address: str = "198.51.100.7",
    ) -> Response:
        stamp = stamp or self.stamp()
        payload = CHANNEL.request_payload(stamp, path, SERVER.address, body)
        fields: dict[str, str | None] = {
            **dict(signing.write_stamp(stamp)),
            signing.SIGNATURE: signing.sign(payload, key),
            "content-length": str(len(body)),
            **(headers or {}),
        }
        chosen = {name: value for name, value in fields.items() if value is not None}
        response = await call(self.app, path, chosen, _pieces(body), method=method, address=address)
        if signing.SIGNATURE in response.headers:
            answered = CHANNEL.response_payload(keccak256(payload), response.status_code, response.content)
            signing.verify(answered, response.headers[signing.SIGNATURE], SERVER.address)
        return response

    async def refused(self, name: str, status: int, **options: Any) -> str:
        """Ask and be refused; the reason. The service was not called."""
        calls = self.service.calls
        response = await self.ask(**options)
        assert (response.status_code, decode_fault(response.content)[0]) == (status, name)
        assert self.refusals[-1][0] == name
        assert self.service.calls == calls
        return decode_fault(response.content)[1]


@dataclass
class Response:
    status_code: int
    headers: dict[str, str]
    content: bytes


async def call(
    app: Starlette,
    path: str,
    headers: dict[str, str],
    body: AsyncIterator[bytes],
    *,
    method: str = "POST",
    address: str = "198.51.100.7",
) -> Response:
    """One request as a server would hand it to the application."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": (address, 1234),
        "server": ("server", 80),
    }
    sent: list[Any] = []

    async def receive() -> Any:
        piece = await anext(body, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: Any) -> None:
        sent.append(message)

    with suppress(ZeroDivisionError):  # what a test lets the service raise; a server would log it
        await app(scope, receive, send)
    given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Response(sent[0]["status"], given, b"".join(message["body"] for message in sent[1:]))


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


async def test_a_members_request_is_answered_and_signed() -> None:
    response = await Listener().ask()
    assert (response.status_code, response.content) == (200, b"body")
    assert signing.SIGNATURE in response.headers


@pytest.mark.parametrize(
    ("options", "name", "status"),
    [
        ({"path": "/v1/nothing"}, "path", 404),
        ({"path": "/"}, "path", 404),
        ({"path": "/v1/../v1/body"}, "path", 404),
        ({"method": "GET"}, "method", 405),
        ({"headers": {"content-length": None}}, "length", 411),
        ({"headers": {"content-length": "-1"}}, "length", 411),
        ({"headers": {"content-length": "9" * 30}}, "length", 411),
        ({"headers": {"content-length": "1000"}}, "length", 413),
        ({"headers": {"transfer-encoding": "chunked"}}, "length", 411),
        ({"headers": {"content-encoding": "gzip"}}, "length", 411),
        ({"headers": {signing.SENDER: None}}, "headers", 401),
        ({"headers": {signing.SENDER: "0x" + "G" * 40}}, "headers", 401),
        ({"headers": {signing.SENDER: "0x" + SENDER.address.hex().upper()}}, "headers", 401),
        ({"headers": {signing.SENDER: "0x" + STRANGER.address.hex()}}, "stranger", 403),
        ({"headers": {signing.BOOT: None}}, "signature", 401),
        ({"headers": {signing.COUNTER: "01"}}, "signature", 401),
        ({"headers": {signing.COUNTER: str(1 << 63)}}, "signature", 401),
        ({"headers": {signing.TIME: "now"}}, "signature", 401),
        ({"headers": {signing.SIGNATURE: None}}, "signature", 401),
        ({"headers": {signing.SIGNATURE: "0x" + "00" * 65}}, "signature", 401),
        ({"headers": {signing.SIGNATURE: "0x" + "ab" * 64}}, "signature", 401),
        ({"headers": {signing.COUNTER: "99"}}, "signature", 401),
        ({"key": STRANGER}, "signature", 401),
        ({"path": wire.HANDSHAKE}, "length", 413),
    ],
)
async def test_a_request_that_breaks_a_rule_is_refused_by_name(options: dict[str, Any], name: str, status: int) -> None:
    listener = Listener()
    await listener.refused(name, status, **options)
    assert listener.refusals == [(name, None)]


class Unreachable:
    """A key in another machine, which does not answer."""

    address = SERVER.address

    def sign_payload(self, payload: bytes) -> bytes:
        raise TransientError("the signer does not answer")


async def test_an_answer_that_cannot_be_signed_says_so_and_is_no_answer() -> None:
    listener = Listener(Unreachable())
    response = await listener.ask()
    assert (response.status_code, decode_fault(response.content)[0]) == (503, "busy")
    assert signing.SIGNATURE not in response.headers
    assert response.headers["retry-after"] == "1"


async def test_a_signature_with_high_s_is_refused() -> None:
    listener = Listener()
    stamp = listener.stamp()
    low = SENDER.sign_payload(CHANNEL.request_payload(stamp, wire.BODY, SERVER.address, BODY))
    high = low[:32] + (ORDER - int.from_bytes(low[32:64], "big")).to_bytes(32, "big") + bytes([55 - low[64]])
    await listener.refused("signature", 401, stamp=stamp, headers={signing.SIGNATURE: "0x" + high.hex()})


async def test_a_signature_counts_for_one_path_recipient_network_and_body() -> None:
    listener = Listener()
    stamp = listener.stamp()
    other = (
        {"path": wire.ENTRIES},
        {"recipient": STRANGER.address},
        {"network": NIL},
        {"body": BODY + b"x"},
        {"purpose": "Brokers"},
    )
    for change in other:
        fields: dict[str, Any] = {"path": wire.BODY, "recipient": SERVER.address, "network": NETWORK, "body": BODY}
        fields.update(change)
        channel = replace(CHANNEL, network=fields.pop("network"), purpose=fields.pop("purpose", wire.PURPOSE))
        payload = channel.request_payload(stamp, **fields)
        await listener.refused(
            "signature", 401, stamp=stamp, headers={signing.SIGNATURE: signing.sign(payload, SENDER)}
        )


async def test_a_body_of_another_length_than_announced_is_refused() -> None:
    listener = Listener()
    await listener.refused("length", 413, headers={"content-length": str(len(BODY) - 1)})
    await listener.refused("length", 400, headers={"content-length": str(len(BODY) + 1)})


async def test_a_request_seen_before_is_refused_and_counters_may_overtake_each_other() -> None:
    listener = Listener()
    stamp = listener.stamp(counter=5000)
    assert (await listener.ask(stamp=stamp)).status_code == 200
    await listener.refused("replay", 409, stamp=stamp)
    for counter in (4999, 5001, 9000, 4998, 8999):
        assert (await listener.ask(stamp=replace(stamp, counter=counter))).status_code == 200
    for counter in (4999, 5001, 9000, 4998, 8999, 4000):  # the last one lies below the window
        await listener.refused("replay", 409, stamp=replace(stamp, counter=counter))
    assert (await listener.ask(stamp=replace(stamp, boot_id=8))).status_code == 200
    assert {who for name, who in listener.refusals} == {SENDER.address}


async def test_a_clock_that_is_off_is_told_the_time() -> None:
    listener = Listener(clock_tolerance_ms=1000)
    for time_ms in (NOW_MS - 1001, NOW_MS + 1001, 0, (1 << 63) - 1):
        assert await listener.refused("time", 409, stamp=listener.stamp(time_ms=time_ms)) == str(NOW_MS)
    for time_ms in (NOW_MS - 1000, NOW_MS + 1000):
        assert (await listener.ask(stamp=listener.stamp(time_ms=time_ms))).status_code == 200


async def test_anybody_may_shake_hands() -> None:
    response = await call(Listener().app, wire.HANDSHAKE, {"content-length": "0"}, _pieces(b""))
    assert wire.decode_handshake(response.content).member == SERVER.address
    answered = CHANNEL.response_payload(NIL, 200, response.content)
    signing.verify(answered, response.headers[signing.SIGNATURE], SERVER.address)


async def test_a_staked_node_without_a_seat_may_ask_and_not_tell() -> None:
    listener = Listener()
    listener.service.known_followers = frozenset({STRANGER.address})
    stamp = listener.stamp(sender=STRANGER.address)
    assert (await listener.ask(stamp=stamp, key=STRANGER)).status_code == 200
    for path, body in ((wire.GOSSIP, wire.encode_gossip(Gossip())), (wire.LATE, encode_page([]))):
        stamp = listener.stamp(sender=STRANGER.address)
        await listener.refused("stranger", 403, path=path, body=body, stamp=stamp, key=STRANGER)


async def test_all_nodes_without_a_seat_share_what_one_member_may_use() -> None:
    listener = Listener(in_flight_per_sender=1)
    others = [SigningKey(bytes([n]) * 32) for n in (4, 5)]
    listener.service.known_followers = frozenset(key.address for key in others)
    listener.service.hold = threading.Event()
    first, second = others
    stamp = listener.stamp(sender=first.address)
    held = asyncio.create_task(listener.ask(stamp=stamp, key=first))
    while not listener.service.calls:
        await asyncio.sleep(0.001)
    await listener.refused("busy", 503, stamp=listener.stamp(sender=second.address), key=second)
    listener.service.hold.set()
    assert (await held).status_code == 200


# --- limits ---------------------------------------------------------------------------------------


async def test_a_member_that_asks_too_much_is_slowed_down() -> None:
    listener = Listener(requests_per_s=0.001, burst=3)
    for n in range(3):
        assert (await listener.ask(address=f"198.51.100.{n}")).status_code == 200
    assert "this member" in await listener.refused("rate", 429, address="198.51.100.9")


async def test_an_address_that_asks_too_much_is_slowed_down() -> None:
    listener = Listener(requests_per_s=0.001, burst=3)
    listener.service.known_members[STRANGER.address] = ""
    for _ in range(3):
        assert (await listener.ask()).status_code == 200
    other = listener.stamp(sender=STRANGER.address)
    assert "this address" in await listener.refused("rate", 429, stamp=other, key=STRANGER)


async def test_a_private_network_has_the_share_of_the_whole_committee() -> None:
    listener = Listener(requests_per_s=0.001, burst=3, allow_nets=[ipaddress.ip_network("10.0.0.0/8")])
    listener.service.known_members[STRANGER.address] = ""
    for key in (SENDER, STRANGER):
        for _ in range(3):
            stamp = listener.stamp(sender=key.address)
            assert (await listener.ask(stamp=stamp, key=key, address="10.1.1.1")).status_code == 200


async def test_nobody_can_spend_another_members_tokens() -> None:
    listener = Listener(requests_per_s=0.001, burst=5)
    for n in range(20):
        await listener.refused("signature", 401, key=STRANGER, address=f"198.51.100.{n}")
    assert (await listener.ask()).status_code == 200


async def test_strangers_cost_no_tokens_and_no_memory_of_ours() -> None:
    listener = Listener(requests_per_s=0.001, burst=2)
    for _ in range(20):
        await listener.refused("stranger", 403, stamp=listener.stamp(sender=STRANGER.address), key=STRANGER)
    assert (await listener.ask()).status_code == 200


@pytest.mark.parametrize(
    ("limits", "reason"), [({"in_flight": 2}, "in flight"), ({"in_flight_per_sender": 2}, "member")]
)
async def test_beyond_its_capacity_the_listener_says_so(limits: dict[str, Any], reason: str) -> None:
    listener = Listener(**limits)
    listener.service.hold = threading.Event()
    running = [asyncio.create_task(listener.ask()) for _ in range(2)]
    while listener.service.calls < 2:
        await asyncio.sleep(0.001)
    assert reason in await listener.refused("busy", 503)
    listener.service.hold.set()
    assert [r.status_code for r in await asyncio.gather(*running)] == [200, 200]
    assert (await listener.ask()).status_code == 200


async def test_a_service_that_hangs_is_given_up() -> None:
    listener = Listener(service_s=0.05)
    listener.service.hold = threading.Event()
    response = await listener.ask()
    assert (response.status_code, decode_fault(response.content)[0]) == (503, "busy")
    assert response.headers["retry-after"] == "1"
    listener.service.hold.set()


async def test_a_body_that_drips_is_given_up() -> None:
    listener = Listener(body_s=0.05)

    async def drip() -> AsyncIterator[bytes]:
        yield BODY[:1]
        await asyncio.sleep(5)

    headers = {**dict(signing.write_stamp(listener.stamp())), "content-length": str(len(BODY))}
    response = await call(listener.app, wire.BODY, headers, drip())
    assert (response.status_code, decode_fault(response.content)[0]) == (408, "slow")


# --- what the service says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "name", "status"),
    [
        (MalformedInput("leaves", "nonsense"), "malformed", 400),
        (RemoteFault("no such set"), "refused", 422),
        (Disagreement("ours differs"), "disagreement", 422),
        (TransientError("not yet"), "transient", 503),
        (UnknownOutcome("lost"), "transient", 503),
    ],
)
async def test_errors_of_the_service_are_told_by_name(failure: Exception, name: str, status: int) -> None:
    listener = Listener()
    listener.service.failure = failure
    response = await listener.ask()
    assert (response.status_code, decode_fault(response.content)) == (status, (name, str(failure)))
    assert listener.refusals == [(name, SENDER.address)]


async def test_a_broken_invariant_is_a_plain_500_and_the_listener_lives_on() -> None:
    listener = Listener(in_flight=1)
    listener.service.failure = ZeroDivisionError()
    for _ in range(3):
        response = await listener.ask()
        assert response.status_code == 500
        assert signing.SIGNATURE not in response.headers
    listener.service.failure = None
    assert (await listener.ask()).status_code == 200


async def test_members_that_cannot_be_read_now_are_a_reason_to_come_back() -> None:
    listener = Listener()

    def fail() -> Any:
        raise TransientError("database is away")

    listener.service.members = fail  # type: ignore[method-assign]
    assert "database" in await listener.refused("transient", 503)


@pytest.mark.parametrize("path", sorted(set(wire.REQUEST_BYTES) - {wire.HANDSHAKE}))
@pytest.mark.parametrize("body", [b"", b"\xff" * 40, b"\x81\x60", b"\xa0", b"\x9f\xff", b"\x82" * 60])
async def test_a_body_of_nonsense_is_refused_and_named(path: str, body: bytes) -> None:
    listener = Listener()
    if path == wire.LATE and body == b"":
        assert (await listener.ask(path, body)).status_code == 200  # an empty page
        return
    assert await listener.refused("malformed", 400, path=path, body=body)
