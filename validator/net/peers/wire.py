"""Bodies that peers exchange, one pair of functions per body; canonical CBOR, bounded, strictly read.

    gossip/1      [statement…], [quorum…], [body…], [upload…], [[number, report digest, signer, signature]…]
    held/1        config digest, instance kind, number, [[kind, round, value, [signer…]]…]
    set/1         set root                              -> entries/1 (codec.outcome)
    reconcile/1   set root, strong, [[stream id, partition]…], message  -> a Negentropy message
    leaves/1      set root, [leaf…]                     -> page of messages
    body/1        digest                                -> the observation or outcome itself
    named/1       config digest, instance kind, number, [observation digest…]
                                                        -> gossip/1 with the statements that name them, and bodies
    instances/1   [[kind, number]…]                     -> certified/1
    certified/1   [[kind, number, outcome, quorum]…]
    handshake/1   member, [version…], [config preimage…], now_ms, head

Pages of messages and refusals: net.signed. Statements, quorums, announcements and bodies travel as byte strings that
hold their own canonical encoding; their signatures are not checked here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from validator.net.signed.pages import MAX_LEAVES, MAX_PAGE_BYTES
from validator.ports.peers import Attestation, Gossip, Handshake, HeldVotes
from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_u63
from validator.protocol.codec.outcome import MAX_ENTRIES_BYTES, MAX_OUTCOME_BYTES, part_order
from validator.protocol.codec.statement import (
    MAX_QUORUM_BYTES,
    decode_quorum,
    decode_statement,
    decode_upload,
    encode_quorum,
    encode_statement,
    encode_upload,
)
from validator.protocol.consensus.reconcile import MAX_MESSAGE_BYTES
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Root,
    StatementKind,
    StreamPart,
    VoteQuorum,
)

PURPOSE = "Peers"
"""Of the channel (net.signed) among validators."""

GOSSIP, MISSING, ENTRIES, RECONCILE, MESSAGES, BODY, OBSERVATIONS, CERTIFIED, LATE, HANDSHAKE = (
    "/v1/gossip",
    "/v1/missing",
    "/v1/entries",
    "/v1/reconcile",
    "/v1/messages",
    "/v1/body",
    "/v1/observations",
    "/v1/certified",
    "/v1/late",
    "/v1/handshake",
)

MAX_INSTANCES = 256
MAX_PARTS = 1 << 16
MAX_NAMED = 64
"""Observations that one outcome may name: one per member, of whom there are at most 32."""
MAX_GOSSIP_BYTES = 8 << 20
MAX_GOSSIP_ITEMS = 4096
_GOSSIP_BODIES_BYTES = 4 << 20
MAX_HELD_BYTES = 1 << 20
MAX_RECONCILE_BYTES = MAX_MESSAGE_BYTES + (4 << 20)
MAX_CERTIFIED_BYTES = MAX_OUTCOME_BYTES + (1 << 20)
MAX_HANDSHAKE_BYTES = 1 << 20

REQUEST_BYTES = {
    GOSSIP: MAX_GOSSIP_BYTES,
    MISSING: MAX_HELD_BYTES,
    ENTRIES: 128,
    RECONCILE: MAX_RECONCILE_BYTES,
    MESSAGES: MAX_LEAVES * 34 + 128,
    BODY: 128,
    OBSERVATIONS: MAX_NAMED * 34 + 128,
    CERTIFIED: MAX_INSTANCES * 16 + 128,
    LATE: MAX_PAGE_BYTES,
    HANDSHAKE: 0,
}
"""Most bytes of a request's body, by endpoint."""
ANSWER_BYTES = {
    GOSSIP: 0,
    MISSING: MAX_GOSSIP_BYTES,
    ENTRIES: MAX_ENTRIES_BYTES,
    RECONCILE: MAX_MESSAGE_BYTES,
    MESSAGES: MAX_PAGE_BYTES,
    BODY: MAX_OUTCOME_BYTES,
    OBSERVATIONS: MAX_GOSSIP_BYTES,
    CERTIFIED: MAX_CERTIFIED_BYTES,
    LATE: 0,
    HANDSHAKE: MAX_HANDSHAKE_BYTES,
}
"""Most bytes of an answer's body, by endpoint."""


# --- gossip ---------------------------------------------------------------------------------------


def encode_gossip(gossip: Gossip) -> bytes:
    """Bodies that do not fit beside each other in 4 MiB are left out, largest first: their digests are in statements,
    so who lacks one asks for it."""
    return cbor.encode_object(
        "gossip/1",
        [encode_statement(s) for s in gossip.statements],
        [encode_quorum(q) for q in gossip.quorums],
        _bodies_that_fit(gossip.bodies),
        [encode_upload(u) for u in gossip.uploads],
        [[a.number, a.report_digest, a.signer, a.signature] for a in gossip.attestations],
    )


def decode_gossip(data: bytes) -> Gossip:
    """Inverse of ``encode_gossip``. Raises MalformedInput naming the part."""
    f = cbor.decode_object(data, "gossip/1", 5, max_bytes=MAX_GOSSIP_BYTES)
    lists = [_list(part, "gossip", MAX_GOSSIP_ITEMS) for part in f]
    return Gossip(
        statements=tuple(decode_statement(read_blob(s, "gossip.statements")) for s in lists[0]),
        quorums=tuple(decode_quorum(read_blob(q, "gossip.quorums")) for q in lists[1]),
        bodies=tuple(read_blob(b, "gossip.bodies") for b in lists[2]),
        uploads=tuple(decode_upload(read_blob(u, "gossip.uploads")) for u in lists[3]),
        attestations=tuple(_read_attestation(a) for a in lists[4]),
    )


def split_gossip(gossip: Gossip) -> Iterator[Gossip]:
    """The same news in requests that each fit the limits."""
    size = MAX_GOSSIP_ITEMS // 16
    yield replace(
        gossip,
        statements=gossip.statements[:size],
        quorums=gossip.quorums[:size],
        uploads=gossip.uploads[:size],
        attestations=gossip.attestations[:size],
    )
    parts = (gossip.statements, gossip.quorums, gossip.uploads, gossip.attestations)
    for start in range(size, max(len(part) for part in parts), size):
        chosen = slice(start, start + size)
        yield Gossip(
            statements=gossip.statements[chosen],
            quorums=gossip.quorums[chosen],
            uploads=gossip.uploads[chosen],
            attestations=gossip.attestations[chosen],
        )


def _bodies_that_fit(bodies: Sequence[bytes]) -> list[bytes]:
    kept = sorted(bodies, key=len)
    total = sum(map(len, kept))
    while kept and total > _GOSSIP_BODIES_BYTES:
        total -= len(kept.pop())
    chosen = set(kept)
    return [body for body in bodies if body in chosen]


def _read_attestation(item: Any) -> Attestation:
    f = _list(item, "gossip.attestations", 4, exactly=True)
    return Attestation(
        read_u63(f[0], "attestation.number"),
        Digest(read_bytes(f[1], 32, "attestation.report_digest")),
        Address(read_bytes(f[2], 20, "attestation.signer")),
        read_bytes(f[3], 65, "attestation.signature"),
    )


def encode_held(held: HeldVotes) -> bytes:
    return cbor.encode_object(
        "held/1",
        held.config_digest,
        int(held.instance.kind),
        held.instance.number,
        [[int(kind), round_, value, sorted(signers)] for kind, round_, value, signers in sorted(held.held)],
    )


def decode_held(data: bytes) -> HeldVotes:
    """Inverse of ``encode_held``. Raises MalformedInput."""
    f = cbor.decode_object(data, "held/1", 4, max_bytes=MAX_HELD_BYTES)
    held = []
    for item in _list(f[3], "held", MAX_GOSSIP_ITEMS):
        kind, round_, value, signers = _list(item, "held", 4, exactly=True)
        if type(kind) is not int or kind not in [int(k) for k in StatementKind]:
            raise MalformedInput("held.kind", "unknown")
        addresses = tuple(Address(read_bytes(s, 20, "held.signers")) for s in _list(signers, "held.signers", 256))
        held.append(
            (
                StatementKind(kind),
                read_u63(round_, "held.round"),
                Digest(read_bytes(value, 32, "held.value")),
                addresses,
            )
        )
    return HeldVotes(Digest(read_bytes(f[0], 32, "held.config_digest")), _read_instance(f[1], f[2]), tuple(held))


# --- sets -----------------------------------------------------------------------------------------


def encode_set_root(set_root: Root) -> bytes:
    return cbor.encode_object("set/1", set_root)


def decode_set_root(data: bytes) -> Root:
    (root,) = cbor.decode_object(data, "set/1", 1, max_bytes=REQUEST_BYTES[ENTRIES])
    return Root(read_bytes(root, 32, "set_root"))


def encode_reconcile(set_root: Root, parts: Iterable[StreamPart], message: bytes, *, strong: bool) -> bytes:
    ordered = [list(part) for part in sorted(parts, key=part_order)]
    return cbor.encode_object("reconcile/1", set_root, strong, ordered, message)


def decode_reconcile(data: bytes) -> tuple[Root, list[StreamPart], bytes, bool]:
    """(set root, parts, message, strong). Raises MalformedInput."""
    f = cbor.decode_object(data, "reconcile/1", 4, max_bytes=MAX_RECONCILE_BYTES)
    if not isinstance(f[1], bool):
        raise MalformedInput("reconcile.strong", "not a boolean")
    parts = []
    for item in _list(f[2], "reconcile.parts", MAX_PARTS):
        stream_id, partition = _list(item, "reconcile.parts", 2, exactly=True)
        if not isinstance(stream_id, str) or not 0 < len(stream_id.encode()) <= 256:
            raise MalformedInput("reconcile.parts", "a stream id that is no text of 1 to 256 bytes")
        parts.append((stream_id, read_u63(partition, "reconcile.partition")))
    keys = [part_order(part) for part in parts]
    if any(not a < b for a, b in itertools.pairwise(keys)):
        raise MalformedInput("reconcile.parts", "not in strictly ascending order")
    return Root(read_bytes(f[0], 32, "set_root")), parts, read_blob(f[3], "reconcile.message"), f[1]


def encode_leaves(set_root: Root, leaves: Sequence[Digest]) -> bytes:
    return cbor.encode_object("leaves/1", set_root, list(leaves))


def decode_leaves(data: bytes) -> tuple[Root, list[Digest]]:
    """(set root, distinct leaves). Raises MalformedInput."""
    f = cbor.decode_object(data, "leaves/1", 2, max_bytes=REQUEST_BYTES[MESSAGES])
    leaves = [Digest(read_bytes(leaf, 32, "leaves")) for leaf in _list(f[1], "leaves", MAX_LEAVES)]
    if len(set(leaves)) != len(leaves):
        raise MalformedInput("leaves", "one occurs twice")
    return Root(read_bytes(f[0], 32, "set_root")), leaves


# --- bodies, certificates, handshakes -------------------------------------------------------------


def encode_digest(digest: Digest) -> bytes:
    return cbor.encode_object("body/1", digest)


def decode_digest(data: bytes) -> Digest:
    (digest,) = cbor.decode_object(data, "body/1", 1, max_bytes=REQUEST_BYTES[BODY])
    return Digest(read_bytes(digest, 32, "body.digest"))


def encode_named(instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]) -> bytes:
    return cbor.encode_object("named/1", config_digest, int(instance.kind), instance.number, list(digests))


def decode_named(data: bytes) -> tuple[InstanceId, Digest, list[Digest]]:
    """(instance, config digest, observation digests). Raises MalformedInput."""
    f = cbor.decode_object(data, "named/1", 4, max_bytes=REQUEST_BYTES[OBSERVATIONS])
    digests = [Digest(read_bytes(digest, 32, "named")) for digest in _list(f[3], "named", MAX_NAMED)]
    return _read_instance(f[1], f[2]), Digest(read_bytes(f[0], 32, "named.config_digest")), digests


def encode_instances(instances: Sequence[InstanceId]) -> bytes:
    return cbor.encode_object("instances/1", [[int(i.kind), i.number] for i in instances])


def decode_instances(data: bytes) -> list[InstanceId]:
    (items,) = cbor.decode_object(data, "instances/1", 1, max_bytes=REQUEST_BYTES[CERTIFIED])
    pairs = (_list(item, "instances", 2, exactly=True) for item in _list(items, "instances", MAX_INSTANCES))
    return [_read_instance(kind, number) for kind, number in pairs]


def encode_certified(certified: Sequence[tuple[InstanceId, bytes, VoteQuorum]]) -> bytes:
    """As many as fit, in the order given, at least one."""
    items: list[Any] = []
    size = 0
    for instance, outcome, quorum in certified:
        size += len(outcome) + MAX_QUORUM_BYTES
        if items and size > MAX_OUTCOME_BYTES:
            break
        items.append([int(instance.kind), instance.number, outcome, encode_quorum(quorum)])
    return cbor.encode_object("certified/1", items)


def decode_certified(data: bytes) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
    """(instance, outcome bytes, certificate), neither checked. Raises MalformedInput."""
    (items,) = cbor.decode_object(data, "certified/1", 1, max_bytes=MAX_CERTIFIED_BYTES)
    certified = []
    for item in _list(items, "certified", MAX_INSTANCES):
        kind, number, outcome, quorum = _list(item, "certified", 4, exactly=True)
        blob = read_blob(outcome, "certified.outcome")
        certified.append(
            (_read_instance(kind, number), blob, decode_quorum(read_blob(quorum, "certified.certificate")))
        )
    return certified


def encode_handshake(handshake: Handshake) -> bytes:
    h = handshake
    return cbor.encode_object("handshake/1", h.member, list(h.versions), list(h.configs), h.now_ms, h.head)


def decode_handshake(data: bytes) -> Handshake:
    f = cbor.decode_object(data, "handshake/1", 5, max_bytes=MAX_HANDSHAKE_BYTES)
    return Handshake(
        member=Address(read_bytes(f[0], 20, "handshake.member")),
        versions=tuple(read_u63(v, "handshake.versions") for v in _list(f[1], "handshake.versions", 64)),
        configs=tuple(read_blob(c, "handshake.configs") for c in _list(f[2], "handshake.configs", 16)),
        now_ms=read_u63(f[3], "handshake.now_ms"),
        head=read_u63(f[4], "handshake.head"),
    )


# --- reading --------------------------------------------------------------------------------------


def _list(value: Any, what: str, limit: int, *, exactly: bool = False) -> list[Any]:
    if not isinstance(value, list) or (exactly and len(value) != limit):
        raise MalformedInput(what, f"not a list of {limit}" if exactly else "not a list")
    if len(value) > limit:
        raise MalformedInput(what, f"{len(value)} items exceed the limit of {limit}")
    return value


def _read_instance(kind: Any, number: Any) -> InstanceId:
    if type(kind) is not int or kind not in [int(k) for k in InstanceKind]:
        raise MalformedInput("instance.kind", "unknown")
    return InstanceId(InstanceKind(kind), read_u63(number, "instance.number"))
