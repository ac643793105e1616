"""A peers listener behind a TLS terminator, asked as the wiring asks: certificates by the operator's setting."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import uvicorn

from tests.fakes.peer_service import FakePeerService, FakeSet, a_body
from tests.fakes.tls import Authority, forwarding, reverse_proxy
from validator.net.http.listening import listener_config
from validator.net.http.urls import check_url
from validator.net.peers import wire
from validator.net.peers.client import HttpPeers
from validator.net.signed.listener import Limits
from validator.ports.peers import Gossip
from validator.protocol.codec.message import leaf_of_canonical
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError, MalformedInput, RemoteFault, TransientError
from validator.protocol.hashing import hash_object
from validator.protocol.model import Address, Digest
from validator.server.peers import create_app
from validator.settings import Settings
from validator.wiring import Node, NoTasks

CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
NETWORK = Digest(b"\x09" * 32)
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
OURS, THEIRS, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
HOST = "127.0.0.1"

Terminator = Callable[[int, Path], AbstractContextManager[int]]


class Behind:
    """A listener, a terminator in front of it, and members that ask through it."""

    def __init__(self, folder: Path, terminator: Terminator, limits: Limits) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.service = FakePeerService(THEIRS.address, {k.address: "" for k in (OURS, THEIRS, OTHER)})
        self.refusals: list[str] = []
        self.limits = limits
        self._terminator = terminator
        self._open = ExitStack()

    def __enter__(self) -> Behind:
        app = create_app(
            self.service, THEIRS, CONTEXT, NETWORK, self.limits, on_refusal=lambda name, who: self.refusals.append(name)
        )
        server = uvicorn.Server(listener_config(app, HOST, 0, allow_nets=self.limits.allow_nets))
        sock = self._open.enter_context(socket.create_server((HOST, 0)))
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        self._open.callback(thread.join, 10)
        self._open.callback(setattr, server, "should_exit", True)
        while not server.started:
            time.sleep(0.005)
        pem = self.authority.issue(HOST)
        self.port = self._open.enter_context(self._terminator(sock.getsockname()[1], pem))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def node(self, ca_file: Path | None) -> Node:
        """A validator's wiring with nothing but what its HTTP client needs."""
        settings = Settings(
            network_file=self.folder / "network.toml",
            data_dir=self.folder,
            rpc_urls=("http://127.0.0.1:9",),
            gateway_urls=("http://127.0.0.1:9",),
            allow_nets=("127.0.0.0/8",),
            ca_file=ca_file,
        )
        return Node(settings, NoTasks())

    def member(self, key: SigningKey = OURS, *, ca_file: Path | None = None, clock_off_ms: int = 0) -> HttpPeers:
        peers = HttpPeers(
            key=key,
            context=CONTEXT,
            network=NETWORK,
            endpoints=lambda: {THEIRS.address: f"https://{HOST}:{self.port}"},
            client=self.node(ca_file or self.authority.ca_file).http,
            check=lambda url: check_url(url, allow_http=False, allow_nets=LOOPBACK),
            now_ms=lambda: int(time.time() * 1000) + clock_off_ms,
        )
        self._open.callback(peers.close)
        return peers


@pytest.fixture(params=[forwarding, reverse_proxy], ids=["bytes passed on", "http on both sides"])
def behind(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Behind]:
    with Behind(tmp_path, request.param, Limits(allow_nets=LOOPBACK)) as made:
        yield made


def test_a_terminator_in_front_changes_nothing(behind: Behind) -> None:
    """Requests and answers of many sizes, several on one connection, keep their signatures."""
    peers, gossip = behind.member(), Gossip(bodies=(b"one", b"two"))
    behind.service.known_bodies[hash_object(b"body")] = b"body"
    assert peers.handshake(THEIRS.address).member == THEIRS.address
    peers.send(THEIRS.address, gossip)
    assert peers.fetch_body(THEIRS.address, hash_object(b"body")) == b"body"
    theirs = behind.service.add(FakeSet({("s", 0): [(1_700_000_000_000 + n, a_body(n, 900_000)) for n in range(11)]}))
    fetched = peers.fetch_messages(THEIRS.address, theirs.root, list(theirs.bodies))
    assert {leaf_of_canonical(message) for message in fetched} == set(theirs.bodies)
    pushed = [a_body(n, 900_000) for n in range(4)]
    peers.push_late(THEIRS.address, pushed)
    assert behind.service.received == [(OURS.address, gossip)]
    assert behind.service.late == [(OURS.address, pushed)]
    assert behind.refusals == []


def test_refusals_come_through_signed(behind: Behind) -> None:
    peers = behind.member(clock_off_ms=-86_400_000)
    behind.service.known_bodies[hash_object(b"body")] = b"body"
    assert peers.fetch_body(THEIRS.address, hash_object(b"body")) == b"body"  # told the time, asked again
    assert behind.refusals == ["time"]
    behind.service.failure = MalformedInput("gossip", "no such instance")
    with pytest.raises(RemoteFault, match="no such instance"):
        peers.send(THEIRS.address, Gossip())


def test_a_terminator_without_a_listener_is_a_reason_to_come_back(tmp_path: Path) -> None:
    behind = Behind(tmp_path, reverse_proxy, Limits())
    with socket.create_server((HOST, 0)) as gone:
        nobody = gone.getsockname()[1]
    with reverse_proxy(nobody, behind.authority.issue(HOST)) as behind.port, pytest.raises(TransientError, match="502"):
        behind.member().handshake(THEIRS.address)


def test_a_committee_that_comes_from_one_address_has_a_committees_share(tmp_path: Path) -> None:
    few = Limits(requests_per_s=0.001, burst=3, allow_nets=LOOPBACK)
    with Behind(tmp_path, reverse_proxy, few) as behind:
        for key in (OURS, OTHER):
            peers = behind.member(key)
            for _ in range(3):
                peers.send(THEIRS.address, Gossip())
            with pytest.raises(TransientError, match="429 rate: too many requests of this member"):
                peers.send(THEIRS.address, Gossip())


def test_a_terminator_whose_address_is_not_named_has_one_members_share(tmp_path: Path) -> None:
    with Behind(tmp_path, reverse_proxy, Limits(requests_per_s=0.001, burst=3)) as behind:
        for _ in range(3):
            behind.member(OURS).send(THEIRS.address, Gossip())
        with pytest.raises(TransientError, match="429 rate: too many requests from this address"):
            behind.member(OTHER).send(THEIRS.address, Gossip())


def test_a_certificate_of_an_authority_that_is_not_named_is_refused(behind: Behind, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(TransientError, match=r"(?i)certificate"):
        behind.member(ca_file=Authority(other).ca_file).handshake(THEIRS.address)
    base = check_url(f"https://{HOST}:{behind.port}", allow_http=False, allow_nets=LOOPBACK)
    with pytest.raises(TransientError, match=r"(?i)certificate"):
        behind.node(None).http.fetch("POST", base, wire.HANDSHAKE, max_bytes=100, deadline_s=5, body=b"")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^LOGSTORE_CA_FILE: .*wrong\.pem: "):
        _ = Behind(tmp_path, reverse_proxy, Limits()).node(path).http
