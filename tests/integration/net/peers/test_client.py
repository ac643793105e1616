from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from tests.fakes.peer_service import FakePeerService, FakeSet, a_body
from validator.net.http.client import BoundedClient
from validator.net.http.listening import listener_config
from validator.net.http.urls import check_url
from validator.net.peers import wire
from validator.net.peers.client import HttpPeers
from validator.net.signed.listener import Limits
from validator.ports.peers import Attestation, Gossip, HeldVotes
from validator.protocol.codec.message import leaf_of_canonical
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.hashing import hash_object
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Root,
    Statement,
    StatementKind,
    VoteQuorum,
)
from validator.server.peers import create_app
from validator.steps.reconcile import difference

CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
NETWORK = Digest(b"\x09" * 32)
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
OURS, THEIRS, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
INSTANCE = InstanceId(InstanceKind.WINDOW, 1_700_000_000_000)
NOW_MS = 1_700_000_000_000


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an application on loopback; its URL."""
    server = uvicorn.Server(listener_config(app, "127.0.0.1", 0, allow_nets=LOOPBACK))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


def a_client(endpoints: dict[Address, str], *, key: SigningKey = OURS, **options: Any) -> HttpPeers:
    return HttpPeers(
        key=key,
        context=options.pop("context", CONTEXT),
        network=options.pop("network", NETWORK),
        endpoints=lambda: endpoints,
        client=BoundedClient(allow_nets=LOOPBACK),
        check=lambda url: check_url(url, allow_http=True, allow_nets=LOOPBACK),
        **options,
    )


@pytest.fixture
def service() -> FakePeerService:
    return FakePeerService(THEIRS.address, {OURS.address: "", THEIRS.address: ""})


@pytest.fixture
def refusals() -> list[tuple[str, Address | None]]:
    return []


@pytest.fixture
def endpoint(service: FakePeerService, refusals: list[tuple[str, Address | None]]) -> Iterator[str]:
    app = create_app(
        service, THEIRS, CONTEXT, NETWORK, Limits(), on_refusal=lambda name, who: refusals.append((name, who))
    )
    with running(app) as url:
        yield url


@pytest.fixture
def peers(endpoint: str) -> Iterator[HttpPeers]:
    peers = a_client({THEIRS.address: endpoint})
    yield peers
    peers.close()


def a_statement(value: int = 1) -> Statement:
    return Statement(
        StatementKind.PREVOTE,
        Digest(b"\x01" * 32),
        INSTANCE,
        0,
        Digest(bytes([value]) * 32),
        OURS.address,
        signature=b"\x05" * 65,
    )


def a_quorum(value: Digest) -> VoteQuorum:
    return VoteQuorum(
        StatementKind.PRECOMMIT,
        Digest(b"\x01" * 32),
        INSTANCE,
        0,
        value,
        ((OURS.address, b"\x05" * 65),),
    )


def a_gossip() -> Gossip:
    return Gossip(
        statements=(a_statement(1), a_statement(2)),
        quorums=(a_quorum(Digest(b"\x02" * 32)),),
        bodies=(b"one", b"two"),
        attestations=(Attestation(3, Digest(b"\x03" * 32), OURS.address, b"\x06" * 65),),
    )


def test_gossip_arrives_whole_and_under_the_senders_name(peers: HttpPeers, service: FakePeerService) -> None:
    peers.send(THEIRS.address, a_gossip())
    assert service.received == [(OURS.address, a_gossip())]


def test_gossip_beyond_one_request_arrives_in_several(peers: HttpPeers, service: FakePeerService) -> None:
    many = Gossip(statements=tuple(a_statement(n % 200) for n in range(600)), bodies=(b"body",))
    peers.send(THEIRS.address, many)
    assert sum((g.statements for _, g in service.received), ()) == many.statements
    assert [g.bodies for _, g in service.received] == [(b"body",), (), ()]


def test_a_broadcast_names_the_error_of_each_member_and_reaches_the_others(
    endpoint: str, service: FakePeerService
) -> None:
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    peers = a_client({THEIRS.address: endpoint, OTHER.address: f"http://127.0.0.1:{closed.getsockname()[1]}"})
    unknown = Address(b"\x11" * 20)
    results = peers.broadcast(a_gossip(), [THEIRS.address, OTHER.address, unknown])
    assert results[THEIRS.address] == ""
    assert "ConnectError" in results[OTHER.address]
    assert "no endpoint" in results[unknown]
    assert len(service.received) == 1


def test_a_broadcast_returns_although_a_member_hangs_and_leaves_it_out_meanwhile(
    endpoint: str, service: FakePeerService
) -> None:
    service.hold = threading.Event()
    peers = a_client({THEIRS.address: endpoint}, broadcast_deadline_s=0.3)
    first = peers.broadcast(a_gossip(), [THEIRS.address])
    assert "timed out" in first[THEIRS.address]
    service.hold.set()


def test_votes_that_we_lack_come_back(peers: HttpPeers, service: FakePeerService) -> None:
    held = HeldVotes(
        Digest(b"\x01" * 32),
        INSTANCE,
        ((StatementKind.PREVOTE, 0, Digest(b"\x02" * 32), (OURS.address, THEIRS.address)),),
    )
    service.lacks = a_gossip()
    assert peers.fetch_missing(THEIRS.address, held) == a_gossip()
    assert service.held == [
        HeldVotes(held.config_digest, held.instance, ((*held.held[0][:3], tuple(sorted(held.held[0][3]))),))
    ]


def test_a_set_is_compared_and_its_missing_messages_fetched(peers: HttpPeers, service: FakePeerService) -> None:
    def part(numbers: range) -> list[tuple[int, bytes]]:
        return [(NOW_MS + n, a_body(n)) for n in numbers]

    theirs = service.add(
        FakeSet({("s", 0): part(range(500)), ("s", 1): part(range(1000, 1100)), ("t", 0): part(range(2000, 2010))})
    )
    ours = FakeSet(
        {("s", 0): part(range(5, 510)), ("s", 1): part(range(1000, 1100)), ("u", 0): part(range(3000, 3003))}
    )
    found = difference(peers, THEIRS.address, theirs.root, ours, count=610)
    assert set(found.need) == set(theirs.bodies) - set(ours.bodies)
    assert set(found.have) == set(ours.bodies) - set(theirs.bodies)
    fetched = peers.fetch_messages(THEIRS.address, theirs.root, found.need)
    assert {leaf_of_canonical(body) for body in fetched} == set(found.need)


def test_messages_come_in_pages(peers: HttpPeers, service: FakePeerService) -> None:
    messages = [(NOW_MS + n, a_body(n, 900_000)) for n in range(11)]
    theirs = service.add(FakeSet({("s", 0): messages}))
    fetched = peers.fetch_messages(THEIRS.address, theirs.root, list(theirs.bodies))
    assert sorted(fetched) == sorted(theirs.bodies.values())
    assert service.calls == 3


def test_the_pages_of_one_set_have_a_deadline_together(endpoint: str, service: FakePeerService) -> None:
    """A member may answer each request in time, and with one message only."""
    messages = [(NOW_MS + n, a_body(n, 900_000)) for n in range(11)]
    theirs = service.add(FakeSet({("s", 0): messages}))
    late = a_client({THEIRS.address: endpoint}, set_deadline_s=-1.0)
    with pytest.raises(TransientError, match="0 of 11 messages within"):
        late.fetch_messages(THEIRS.address, theirs.root, list(theirs.bodies))
    late.close()


def test_messages_that_the_member_lacks_are_left_out(peers: HttpPeers, service: FakePeerService) -> None:
    theirs = service.add(FakeSet({("s", 0): [(NOW_MS, a_body(1))]}))
    wanted = [*theirs.bodies, Digest(b"\x77" * 32)]
    assert peers.fetch_messages(THEIRS.address, theirs.root, wanted) == [a_body(1)]


def test_late_messages_are_pushed_in_pages(peers: HttpPeers, service: FakePeerService) -> None:
    messages = [a_body(n, 900_000) for n in range(9)]
    peers.push_late(THEIRS.address, messages)
    assert [m for _, page in service.late for m in page] == messages
    assert [len(page) for _, page in service.late] == [4, 4, 1]


def test_a_body_comes_by_its_digest(peers: HttpPeers, service: FakePeerService) -> None:
    service.known_bodies[hash_object(b"body")] = b"body"
    assert peers.fetch_body(THEIRS.address, hash_object(b"body")) == b"body"
    with pytest.raises(TransientError, match="body is not here"):
        peers.fetch_body(THEIRS.address, hash_object(b"other"))


def test_observations_come_by_their_digests_and_nothing_else(peers: HttpPeers, service: FakePeerService) -> None:
    digest = hash_object(b"observation")
    service.known_bodies[digest] = b"observation"
    statement = replace(a_statement(), kind=StatementKind.OBSERVATION, value=digest)
    service.lacks = Gossip(statements=(statement,))
    config = statement.config_digest
    answer = peers.fetch_observations(THEIRS.address, INSTANCE, config, [digest, hash_object(b"unknown")])
    assert answer == Gossip(statements=service.lacks.statements, bodies=(b"observation",))

    def others(*_: object) -> Gossip:
        return service.lacks

    service.observations = others  # type: ignore[method-assign,assignment]
    with pytest.raises(RemoteFault, match="not asked for"):
        peers.fetch_observations(THEIRS.address, INSTANCE, config, [hash_object(b"unknown")])


def test_certified_outcomes_come_with_their_certificates(peers: HttpPeers, service: FakePeerService) -> None:
    service.known_certified[INSTANCE] = (b"outcome", a_quorum(hash_object(b"outcome")))
    unknown = InstanceId(InstanceKind.LATE, 3)
    assert peers.fetch_certified(THEIRS.address, [unknown, INSTANCE]) == [
        (INSTANCE, b"outcome", a_quorum(hash_object(b"outcome")))
    ]


def test_a_handshake_says_who_the_peer_is(peers: HttpPeers) -> None:
    handshake = peers.handshake(THEIRS.address)
    assert (handshake.member, handshake.versions, handshake.head) == (THEIRS.address, (1,), 42)


def test_an_endpoint_of_another_member_is_noticed(endpoint: str) -> None:
    peers = a_client({OTHER.address: endpoint})
    with pytest.raises((TransientError, RemoteFault)):
        peers.handshake(OTHER.address)


# --- lies -----------------------------------------------------------------------------------------


def test_entries_that_do_not_give_the_root_are_a_fault(peers: HttpPeers, service: FakePeerService) -> None:
    lie = FakeSet({("s", 0): [(NOW_MS, a_body(1))]})
    service.sets[Root(b"\x55" * 32)] = lie
    with pytest.raises(RemoteFault, match="do not give the root") as caught:
        peers.fetch_entries(THEIRS.address, Root(b"\x55" * 32))
    assert caught.value.member == THEIRS.address


def test_a_message_that_was_not_asked_for_is_a_fault(peers: HttpPeers, service: FakePeerService) -> None:
    theirs = service.add(FakeSet({("s", 0): [(NOW_MS, a_body(1))]}))
    (leaf,) = theirs.bodies
    theirs.bodies[leaf] = a_body(2)
    with pytest.raises(RemoteFault, match="not asked for"):
        peers.fetch_messages(THEIRS.address, theirs.root, [leaf])


def test_a_body_of_another_digest_is_a_fault(peers: HttpPeers, service: FakePeerService) -> None:
    service.known_bodies[Digest(b"\x01" * 32)] = b"something"
    with pytest.raises(RemoteFault, match="digest"):
        peers.fetch_body(THEIRS.address, Digest(b"\x01" * 32))


def test_a_certificate_of_another_outcome_is_a_fault(peers: HttpPeers, service: FakePeerService) -> None:
    service.known_certified[INSTANCE] = (b"outcome", a_quorum(hash_object(b"another")))
    with pytest.raises(RemoteFault, match="do not name each other"):
        peers.fetch_certified(THEIRS.address, [INSTANCE])


def test_an_answer_that_does_not_parse_is_a_fault_of_the_member(peers: HttpPeers, service: FakePeerService) -> None:
    service.reconcile = lambda *a, **k: b"\xff"  # type: ignore[method-assign]
    theirs = service.add(FakeSet({("s", 0): [(NOW_MS, a_body(1))]}))
    with pytest.raises(RemoteFault, match="version byte"):
        difference(peers, THEIRS.address, theirs.root, FakeSet({}))


# --- refusals -------------------------------------------------------------------------------------


def test_a_stranger_is_refused(endpoint: str, service: FakePeerService, refusals: list[Any]) -> None:
    peers = a_client({THEIRS.address: endpoint}, key=OTHER)
    with pytest.raises(TransientError, match="not a member"):
        peers.send(THEIRS.address, a_gossip())
    assert service.received == []
    assert refusals == [("stranger", None)]


def test_a_request_of_another_network_is_refused(endpoint: str, service: FakePeerService, refusals: list[Any]) -> None:
    for peers in (
        a_client({THEIRS.address: endpoint}, network=Digest(b"\x0a" * 32)),
        a_client({THEIRS.address: endpoint}, context=SigningContext(1, CONTEXT.report_manager)),
    ):
        with pytest.raises(TransientError, match="not of the named member"):
            peers.send(THEIRS.address, a_gossip())
    assert service.received == []
    assert refusals == [("signature", None)] * 2


def test_a_clock_that_is_off_is_told_the_time_and_the_question_answered(
    endpoint: str, service: FakePeerService, refusals: list[Any]
) -> None:
    service.known_bodies[hash_object(b"body")] = b"body"
    for off_ms in (-86_400_000, 86_400_000):
        peers = a_client({THEIRS.address: endpoint}, now_ms=lambda off=off_ms: int(time.time() * 1000) + off)
        assert peers.fetch_body(THEIRS.address, hash_object(b"body")) == b"body"
        assert peers.fetch_body(THEIRS.address, hash_object(b"body")) == b"body"
    assert refusals == [("time", OURS.address)] * 2


def test_a_wrong_clock_never_holds_up_gossip_certificates_or_handshakes(
    endpoint: str, service: FakePeerService, refusals: list[Any]
) -> None:
    service.known_certified[INSTANCE] = (b"outcome", a_quorum(hash_object(b"outcome")))
    peers = a_client({THEIRS.address: endpoint}, now_ms=lambda: 1000)
    peers.send(THEIRS.address, a_gossip())
    assert len(peers.fetch_certified(THEIRS.address, [INSTANCE])) == 1
    assert peers.handshake(THEIRS.address).member == THEIRS.address
    assert refusals == [("time", OURS.address)] * 3
    assert service.calls == 3


def test_what_the_service_refuses_is_a_fault_with_its_reason(peers: HttpPeers, service: FakePeerService) -> None:
    service.failure = MalformedInput("instance", "no such instance")
    with pytest.raises(RemoteFault, match="no such instance") as caught:
        peers.fetch_certified(THEIRS.address, [INSTANCE])
    assert caught.value.fault == "malformed"


def test_gossip_that_the_service_does_not_believe_is_called_forged(peers: HttpPeers, service: FakePeerService) -> None:
    service.failure = MalformedInput("signature", "not of the named signer")
    with pytest.raises(RemoteFault, match="not of the named signer") as caught:
        peers.send(THEIRS.address, a_gossip())
    assert caught.value.fault == "forged"


def test_a_bug_in_the_service_is_neither_hidden_nor_a_fact_about_the_peer(
    peers: HttpPeers, service: FakePeerService
) -> None:
    service.failure = ZeroDivisionError()
    with pytest.raises(TransientError, match="unsigned"):
        peers.send(THEIRS.address, a_gossip())
    service.failure = None
    peers.send(THEIRS.address, a_gossip())
    assert len(service.received) == 1


def test_an_answer_signed_by_somebody_else_is_not_believed(service: FakePeerService) -> None:
    service.known_bodies[hash_object(b"body")] = b"body"
    imposter = create_app(service, OTHER, CONTEXT, NETWORK)
    with running(imposter) as url, pytest.raises(TransientError, match="unsigned"):
        a_client({THEIRS.address: url}).fetch_body(THEIRS.address, hash_object(b"body"))


def test_an_endpoint_that_breaks_the_rules_is_never_connected_to() -> None:
    for url in ("http://10.0.0.1:8080", "https://user@a.example", "ftp://127.0.0.1:2121", "http://127.0.0.1:22"):
        with pytest.raises(RemoteFault, match="endpoint: url"):
            a_client({THEIRS.address: url}).handshake(THEIRS.address)


def test_many_threads_may_ask_at_once(peers: HttpPeers, service: FakePeerService) -> None:
    service.known_bodies[hash_object(b"body")] = b"body"
    answers: list[bytes] = []

    def ask() -> None:
        answers.extend(peers.fetch_body(THEIRS.address, hash_object(b"body")) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"body"] * 80


def test_every_endpoint_has_its_limits() -> None:
    assert set(wire.REQUEST_BYTES) == set(wire.ANSWER_BYTES)
