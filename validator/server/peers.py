"""The peers listener: what the committee asks, answered by ``PeerService``. The door is net.signed.listener's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.routing import Route

from validator.net.peers import wire
from validator.net.signed.faults import Fault
from validator.net.signed.listener import Door, Limits, Refused, SignedListener
from validator.net.signed.pages import MAX_LEAVES, PAGE_BYTES, decode_page, encode_page
from validator.net.signed.signing import Channel
from validator.ports.peers import PeerService
from validator.protocol.codec.outcome import encode_entries
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Digest

_DOOR = Door(
    wire.REQUEST_BYTES,
    timeless=frozenset({wire.GOSSIP, wire.LATE, wire.CERTIFIED, wire.HANDSHAKE}),
    anonymous=frozenset({wire.HANDSHAKE}),
    strangers=frozenset(wire.REQUEST_BYTES) - {wire.GOSSIP, wire.LATE},
)
"""A staked node without a seat, such as an observer, may ask everything; what it would tell counts for nothing."""
_FIRST_MESSAGES = 64


def create_app(
    service: PeerService,
    key: Signer,
    context: SigningContext,
    network: Digest,
    limits: Limits | None = None,
    *,
    on_refusal: Callable[[str, Address | None], None] | None = None,
    now_ms: Callable[[], int] | None = None,
) -> Starlette:
    """ASGI application of one validator's peers listener.

    ``on_refusal`` is told each refusal's name and the verified sender, if any, for metrics.
    """
    listener = SignedListener(
        _DOOR,
        lambda: service.members(),
        partial(_perform, service),
        key,
        Channel(wire.PURPOSE, context, network),
        limits,
        admitted=lambda: service.followers(),
        on_refusal=on_refusal,
        now_ms=now_ms,
    )
    return Starlette(routes=[Route("/{path:path}", listener.handle, methods=["GET", "POST"])])


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
            raise Refused(400, Fault.FORGED, str(error)) from error
        return b""
    if path == wire.LATE:
        service.receive_late(sender, decode_page(body, MAX_LEAVES))
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
            if page and size + len(message) > PAGE_BYTES:
                return encode_page(page)
            page.append(message)
            size += len(message)
        at += run
        average = size // len(page) + 1 if page else 1
        run = max(1, min(MAX_LEAVES, (PAGE_BYTES - size) // average))
    return encode_page(page)
