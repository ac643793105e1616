"""What peers may send to a running validator: each kind of bad input is counted by name, and none moves the state."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.builders import a_key
from tests.fakes.small_network import SmallNetwork
from validator.metrics import render_metrics
from validator.net.peers import wire
from validator.net.signed import listener, signing
from validator.net.signed.listener import Limits
from validator.net.signed.signing import Channel, Stamp, network_digest
from validator.ports.peers import Attestation, Gossip
from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import encode_observation
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import encode_statement, sign_statement
from validator.protocol.consensus.votes import AHEAD, BEHIND
from validator.protocol.hashing import EMPTY_ROOT, hash_body, hash_object
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Statement,
    StatementKind,
    VoteQuorum,
)
from validator.server.peers import create_app
from validator.server.run import count_refusal
from validator.steps import peer_service
from validator.steps.peer_service import LocalPeerService
from validator.wiring import count_statement_refusal

MakeNetwork = Callable[..., SmallNetwork]
TABLES = ("rounds", "journal", "statements", "proofs", "evidence", "bodies", "attestations", "announcements", "due")
FOREIGN = Digest(b"\xee" * 32)


class Attacked:
    """One of two members that are up of four: its first window is open and cannot be decided. ``liar`` is another."""

    def __init__(self, network: SmallNetwork) -> None:
        self.network = network
        self.member, self.liar, *rest = network.members
        for other in rest:
            other.away = True
        network.run_until(6_000)
        self.window = network.window(0)
        head = self.member.store.instances.load_head(self.window)
        assert head is not None
        assert (head.decided, head.older) == (False, 0)
        self.counted: Counter[str] = Counter()
        context = self.member.context
        self.service = LocalPeerService(context, lambda what, reason: self._count(f"{what}: {reason}"))
        self.app = create_app(
            self.service,
            self.member.key,
            context.identity.signing,
            network_digest(context.network),
            Limits(),
            on_refusal=lambda name, _sender: self._count(name),
            now_ms=network.clock.now_ms,
        )
        self.counter = 0
        self.read = 0

    def _count(self, name: str) -> None:
        self.counted[name] += 1

    def state(self) -> dict[str, Any]:
        rows = {table: self.member.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in TABLES}
        return {**rows, "queue": list(self.member.queue.entries)}

    def statement(self, key: Any = None, kind: StatementKind = StatementKind.PREVOTE, **fields: Any) -> Statement:
        key = key or self.liar.key
        values: dict[str, Any] = {
            "config_digest": self.network.committee_digest(),
            "instance": self.window,
            "round": 0,
            "value": hash_body(b"v"),
            "signer": key.address,
        }
        return sign_statement(Statement(kind, **{**values, **fields}), key, self.member.context.identity.signing)

    async def tell(self, gossip: Gossip, key: SigningKey | None = None) -> int:
        """Status of one request of the liar, or of whoever has the key."""
        body = wire.encode_gossip(gossip)
        return await self.send(wire.GOSSIP, body, self.sign(wire.GOSSIP, body, key))

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
        """Status of one signed request of the liar."""
        return await self.send(path, body, headers or self.sign(path, body))

    def sign(self, path: str, body: bytes, key: SigningKey | None = None) -> dict[str, str]:
        self.counter += 1
        context, key = self.member.context, key or self.liar.key
        stamp = Stamp(key.address, 7, self.counter, self.network.clock.now_ms())
        channel = Channel(wire.PURPOSE, context.identity.signing, network_digest(context.network))
        asked = channel.request_payload(stamp, path, self.member.address, body)
        return {
            **dict(signing.write_stamp(stamp)),
            signing.SIGNATURE: signing.sign(asked, key),
            "content-length": str(len(body)),
        }

    async def send(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        pieces = self._pieces(body)
        sent: list[Any] = []

        async def receive() -> Any:
            piece = await anext(pieces, None)
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("198.51.100.7", 1234),
            "server": ("server", 80),
        }
        await self.app(scope, receive, send)
        return int(sent[0]["status"])

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 1 << 16):
            self.read += 1
            yield body[at : at + (1 << 16)]


@pytest.fixture
def attacked(a_network: MakeNetwork) -> Attacked:
    return Attacked(a_network(4))


def forged(statement: Statement) -> Statement:
    return replace(statement, signature=a_key(3).sign(Digest(b"\x05" * 32)))


STRANGER = a_key(77)
BAD: dict[str, tuple[Callable[[Attacked], Sequence[Statement]], str, int]] = {
    "a window that no window starts at": (
        lambda a: [a.statement(instance=InstanceId(InstanceKind.WINDOW, a.window.number + 1))],
        "statement: unknown instance",
        200,
    ),
    "a window far after the network's end": (
        lambda a: [a.statement(instance=InstanceId(InstanceKind.WINDOW, a.window.number + (1 << 50)))],
        "statement: unknown instance",
        200,
    ),
    "a late set of a bundle that is not known": (
        lambda a: [a.statement(instance=InstanceId(InstanceKind.LATE, 9))],
        "statement: unknown instance",
        200,
    ),
    "a foreign config digest": (lambda a: [a.statement(config_digest=FOREIGN)], "statement: foreign digest", 200),
    "a signer outside the committee": (lambda a: [a.statement(STRANGER)], "statement: stranger", 200),
    "a signature of somebody else": (lambda a: [forged(a.statement())], "statement: bad signature", 400),
    "a proposal of nil": (
        lambda a: [a.statement(kind=StatementKind.PROPOSAL, value=Digest(bytes(32)))],
        "statement: unfit",
        200,
    ),
    "an observation of nil": (
        lambda a: [a.statement(kind=StatementKind.OBSERVATION, value=Digest(bytes(32)))],
        "statement: unfit",
        200,
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_statement_is_counted_by_its_name_and_moves_nothing(attacked: Attacked, what: str) -> None:
    make, name, status = BAD[what]
    statements, before = make(attacked), attacked.state()
    assert await attacked.tell(Gossip(statements=tuple(statements))) == status
    assert attacked.counted[name] == len(statements)
    assert attacked.state() == before


def _spoilt(statement: Statement, at: int, value: Any) -> bytes:
    fields = cbor.decode(encode_statement(statement), max_bytes=1 << 10, what="statement")
    fields[at] = value
    return wire_gossip([cbor.encode(fields)])


def wire_gossip(statements: Sequence[bytes]) -> bytes:
    return cbor.encode_object("gossip/1", list(statements), [], [], [], [])


@pytest.mark.parametrize(
    ("at", "value"),
    [(1, 9), (2, b"short"), (3, 7), (4, -1), (5, 1 << 40), (6, 5), (7, "text"), (8, b"\x01" * 19), (9, b"\x02" * 64)],
)
async def test_a_statement_with_a_wrong_field_is_malformed_and_moves_nothing(
    attacked: Attacked, at: int, value: Any
) -> None:
    before = attacked.state()
    assert await attacked.post(wire.GOSSIP, _spoilt(attacked.statement(), at, value)) == 400
    assert attacked.counted == {"malformed": 1}
    assert attacked.state() == before


async def test_a_request_with_one_wrong_signature_is_dropped_whole(attacked: Attacked) -> None:
    before = attacked.state()
    genuine = attacked.statement()
    assert await attacked.tell(Gossip(statements=(genuine, forged(genuine)))) == 400
    assert attacked.state() == before


async def test_a_quorum_that_is_none_moves_nothing(attacked: Attacked) -> None:
    before = attacked.state()
    votes = [attacked.statement(kind=StatementKind.PRECOMMIT), attacked.statement(attacked.member.key)]
    signatures = tuple(sorted((v.signer, v.signature) for v in votes))
    quorum = VoteQuorum(StatementKind.PRECOMMIT, votes[0].config_digest, attacked.window, 0, votes[0].value, signatures)
    assert await attacked.tell(Gossip(quorums=(quorum,))) == 400
    assert await attacked.tell(Gossip(quorums=(replace(quorum, config_digest=FOREIGN),))) == 200
    assert attacked.counted["quorum: bad signature"] == attacked.counted["quorum: foreign digest"] == 1
    assert attacked.state() == before


async def test_attestations_of_no_bundle_are_counted_and_not_kept(attacked: Attacked) -> None:
    before = attacked.state()
    digest = hash_body(b"report")
    attestation = Attestation(3, digest, attacked.liar.address, attacked.liar.key.sign(digest))
    assert await attacked.tell(Gossip(attestations=(attestation,))) == 200
    assert attacked.counted == {"attestation: unknown instance": 1}
    assert attacked.state() == before


async def test_a_request_of_a_stranger_is_refused_whoever_signed_what_it_tells(attacked: Attacked) -> None:
    before = attacked.state()
    assert await attacked.tell(Gossip(statements=(attacked.statement(),)), STRANGER) == 403
    assert (attacked.counted, attacked.read) == ({"stranger": 1}, 0)
    assert attacked.state() == before


async def test_every_kind_of_bad_input_has_a_name_of_its_own_and_none_moves_the_state(attacked: Attacked) -> None:
    lies = [attacked.statement(value=hash_body(b"%d" % i), round=2) for i in range(peer_service.CHECKS_BURST + 1)]
    assert await attacked.tell(Gossip(statements=tuple(lies[:2]))) == 200  # these two are kept, as evidence
    before = attacked.state()
    for refused in (
        attacked.post(wire.GOSSIP, _spoilt(attacked.statement(), 4, -1)),
        attacked.tell(Gossip(statements=(attacked.statement(instance=InstanceId(InstanceKind.LATE, 9)),))),
        attacked.tell(Gossip(statements=(attacked.statement(config_digest=FOREIGN),))),
        attacked.tell(Gossip(statements=(forged(attacked.statement()),))),
        attacked.tell(Gossip(statements=(attacked.statement(STRANGER),))),
        attacked.tell(Gossip(statements=(attacked.statement(),)), STRANGER),
        attacked.post(wire.GOSSIP, bytes(10 << 20)),
        attacked.tell(Gossip(statements=tuple(lies[2:]))),
    ):
        await refused
    assert attacked.counted == {
        "malformed": 1,
        "statement: unknown instance": 1,
        "statement: foreign digest": 1,
        "statement: bad signature": 1,
        "forged": 1,  # the request that told it
        "statement: stranger": 1,
        "stranger": 1,  # as sender
        "length": 1,
        "statement: too often": peer_service.CHECKS_BURST - 1,
        "transient": 1,  # the request that told them
    }
    assert attacked.state() == before


async def test_ten_mebibytes_are_refused_before_a_byte_of_them_is_read(attacked: Attacked) -> None:
    before, body = attacked.state(), bytes(10 << 20)
    assert await attacked.post(wire.GOSSIP, body) == 413
    assert (attacked.counted, attacked.read) == ({"length": 1}, 0)
    assert attacked.state() == before


async def test_ten_thousand_requests_at_once_are_refused_once_the_bucket_is_empty(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        listener, "time", SimpleNamespace(monotonic=lambda: 0.0)
    )  # "at once", however slow this machine
    known = attacked.statement()
    await attacked.tell(Gossip(statements=(known,)))
    before = attacked.state()
    body = wire.encode_gossip(Gossip(statements=(known,)))
    headers = attacked.sign(wire.GOSSIP, body)
    tracemalloc.start()
    for _ in range(10_000):
        await attacked.post(wire.GOSSIP, body, headers)
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert attacked.counted["rate"] > 5_000
    assert attacked.counted["rate"] + attacked.counted["replay"] == 9_999
    assert grown < 16 << 20
    assert attacked.state() == before


async def test_of_ten_thousand_signed_lies_in_one_moment_two_are_kept_and_the_others_counted(
    attacked: Attacked,
) -> None:
    own = _rows_of(attacked, attacked.liar.address)
    lies = [attacked.statement(value=hash_body(b"%d" % i), round=2) for i in range(10_000)]
    assert await attacked.tell(Gossip(statements=tuple(lies[:2]))) == 200
    before = attacked.state()
    requests = [Gossip(statements=tuple(lies[i : i + 99])) for i in range(2, 10_000, 99)]
    served = [await attacked.tell(request) for request in requests]
    in_time = (peer_service.CHECKS_BURST - 2) // 99
    assert served == [200] * in_time + [503] * (len(requests) - in_time)
    assert attacked.counted["statement: two kept already"] == in_time * 99
    assert attacked.counted["statement: too often"] == 10_000 - 2 - in_time * 99
    assert _rows_of(attacked, attacked.liar.address) == own + 2
    assert attacked.state() == before


async def test_who_floods_delays_nobody_else_and_may_go_on_later(attacked: Attacked) -> None:
    lies = [attacked.statement(value=hash_body(b"%d" % i)) for i in range(peer_service.CHECKS_BURST)]
    assert await attacked.tell(Gossip(statements=tuple(lies))) == 200
    more = Gossip(statements=(attacked.statement(round=1),))
    assert await attacked.tell(more) == 503
    honest = attacked.network.members[2].key
    assert await attacked.tell(Gossip(statements=(attacked.statement(honest),)), honest) == 200
    assert _rows_of(attacked, honest.address) == 1
    attacked.network.clock.at_ms += 1_000
    assert await attacked.tell(more) == 200


async def test_of_a_third_observation_not_even_the_body_is_kept(attacked: Attacked) -> None:
    bodies = [
        encode_observation(Observation(attacked.window, EMPTY_ROOT, n, n, observer=attacked.liar.address))
        for n in range(3)
    ]
    told = [attacked.statement(kind=StatementKind.OBSERVATION, value=hash_object(body)) for body in bodies]
    for statement, body in zip(told, bodies, strict=True):
        assert await attacked.tell(Gossip(statements=(statement,), bodies=(body,))) == 200
    held = [attacked.member.store.instances.load_body(statement.value) is not None for statement in told]
    assert held == [True, True, False]
    assert attacked.counted == {"statement: two kept already": 1}


async def test_of_rounds_far_ahead_only_the_newest_is_kept(attacked: Attacked) -> None:
    rounds = [AHEAD + 1 + i for i in (5, 900, 30, 901, 7)]
    for round_ in rounds:
        await attacked.tell(Gossip(statements=(attacked.statement(round=round_),)))
    held = attacked.member.rows("SELECT round FROM statements WHERE round > 2")
    assert held == [(AHEAD + 1 + 901,)]
    assert attacked.counted == {"statement: round far ahead and not the signer's newest": 2}
    assert BEHIND < 900


def test_refusals_are_shown_by_what_and_reason_in_the_metrics() -> None:
    count_statement_refusal("statement", "foreign digest")
    count_refusal("length", None)
    shown = render_metrics(list).decode()
    assert 'logstore_statement_refusals_total{reason="foreign digest",what="statement"}' in shown
    assert 'logstore_peer_refusals_total{reason="length"}' in shown


async def test_what_was_taken_is_not_checked_again(attacked: Attacked) -> None:
    statement = attacked.statement()
    for _ in range(5):
        assert await attacked.tell(Gossip(statements=(statement,) * 1_000)) == 200
    assert not attacked.counted


async def test_the_attacked_window_is_decided_once_the_others_are_back(attacked: Attacked) -> None:
    lies = [attacked.statement(value=hash_body(b"%d" % i), round=i % 3) for i in range(60)]
    await attacked.tell(Gossip(statements=tuple(lies)))
    for member in attacked.network.members:
        member.away = False
    attacked.network.run(
        lambda: all(m.store.instances.load_certificate(attacked.window) is not None for m in attacked.network.members)
    )
    digests = {m.store.instances.load_certificate(attacked.window).value for m in attacked.network.members}  # type: ignore[union-attr]
    assert len(digests) == 1


def _rows_of(attacked: Attacked, signer: Address) -> int:
    found = attacked.member.rows(
        f"SELECT count(*) FROM statements WHERE signer = x'{signer.hex()}' AND statement_kind = 3"
    )
    return int(found[0][0])
