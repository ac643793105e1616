"""The lookout: a cause is told once, by its one name, when it begins and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.server.test_operator import STATUS, FakeView
from tests.unit.server.test_status_page import CALM
from validator.protocol.errors import TransientError
from validator.protocol.model import Address
from validator.redis_link import RedisAway, RedisLink
from validator.server.surroundings import Lookout, PeerSeen
from validator.server.verdict import judge
from validator.settings import Settings
from validator.store.view.status import HeadView, Status


def no_chain(*_arguments: object) -> Any:
    raise TransientError("no chain")


def no_redis(_link: RedisLink) -> dict[str, int]:
    raise RedisAway("connection refused")


@dataclass
class FakeNode:
    """A node whose chain is away, and whose Redis is nowhere."""

    view: FakeView
    settings: Settings
    clock: Any = field(default_factory=lambda: SimpleNamespace(now_ms=lambda: 3_000_000))
    address: bytes = bytes(20)
    context: Any = field(
        default_factory=lambda: SimpleNamespace(store=SimpleNamespace(chain=SimpleNamespace(load_cut_points=no_chain)))
    )


@pytest.fixture
def node() -> FakeNode:
    needed: dict[str, Any] = {"network_file": "n", "rpc_urls": "https://a.example", "gateway_urls": "https://b.example"}
    settings = Settings(_env_file=None, **needed)
    return FakeNode(FakeView(CALM), settings)


def looks(lookout: Lookout, node: FakeNode, status: Status) -> list[dict[str, Any]]:
    node.view.status = status
    with capture_logs() as logs:
        lookout(lambda: None)
    return [dict(entry) for entry in logs if entry["event"].startswith("cause.")]


def test_a_cause_is_a_warning_once_and_its_end_is_told(node: FakeNode) -> None:
    lookout = Lookout(node, no_redis)  # type: ignore[arg-type]
    at = replace(CALM, now_ms=3_000_000, head=HeadView(78, 2_999, 2_999_000))
    frozen = replace(at, head=HeadView(77, 2_900, 2_999_000), gateways=STATUS.gateways)
    assert looks(lookout, node, at) == []
    began = looks(lookout, node, frozen)
    assert [(entry["log_level"], entry["cause"]) for entry in began] == [
        ("warning", "chain frozen"),
        ("warning", "gateway frozen"),
    ]
    assert began[0]["text"] == "chain frozen: block 77 is the newest since 00:48:20 UTC, 1 min 40 s"
    assert began[0]["since_ms"] == 2_900_000
    assert looks(lookout, node, frozen) == []
    ended = looks(lookout, node, at)
    assert sorted(entry["cause"] for entry in ended) == ["chain frozen", "gateway frozen"]
    assert {entry["event"] for entry in ended} == {"cause.ended"}


def test_a_redis_that_does_not_answer_is_a_reason_of_the_verdict_and_ends_nothing(node: FakeNode) -> None:
    lookout = Lookout(node, no_redis)  # type: ignore[arg-type]
    looks(lookout, node, CALM)
    assert lookout.newest.queues is None
    verdict = judge(CALM, [], lookout.newest)
    assert "Redis does not answer" in verdict.text


def test_a_database_that_does_not_answer_ends_nothing(node: FakeNode) -> None:
    node.view.broken = True
    lookout = Lookout(node, no_redis)  # type: ignore[arg-type]
    assert looks(lookout, node, CALM) == []
    assert lookout.newest.seen_ms


def test_a_silent_peer_is_told_once_and_that_it_answers_again(node: FakeNode) -> None:
    lookout = Lookout(node, no_redis)  # type: ignore[arg-type]
    silent = PeerSeen(Address(b"\1" * 20), "b.example", None, 0, "timed out")
    answering = replace(silent, clock_ms=3, error="")
    with capture_logs() as logs:
        for seen in (answering, silent, silent, answering, answering):
            lookout.tell_silent([seen])
    assert [(entry["event"], entry["log_level"], entry["at"]) for entry in logs] == [
        ("peer.away", "warning", "b.example"),
        ("peer.back", "info", "b.example"),
    ]
