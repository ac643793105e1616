"""After an outage of an hour: 180 windows of 20 s, agreed in parallel and oldest first, or taken from peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, some_parameters
from tests.outcomes_in_memory import build_outcome
from validator.ports.stored import InstanceChange
from validator.protocol.codec.certificate import build_quorum
from validator.protocol.codec.outcome import decode_outcome, encode_observation, encode_outcome, set_root
from validator.protocol.codec.statement import sign_statement
from validator.protocol.consensus.window import make_entries, unite
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    Block,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Record,
    Statement,
    StatementKind,
    VoteQuorum,
)
from validator.steps.catchup import LAG_WINDOWS, behind
from validator.steps.scopes import scope_of
from validator.store.view.screen import SqlView

MakeNetwork = Callable[..., SmallNetwork]
WINDOWS = 180
WINDOW_MS = 20_000
HOUR_MS = WINDOWS * WINDOW_MS


def a_network_after_an_outage(a_network: MakeNetwork, n: int, windows: int = WINDOWS) -> SmallNetwork:
    """One message per window is at the brokers; nobody has looked at anything, and the clock stands at the end."""
    parameters = some_parameters(
        window_ms=WINDOW_MS,
        epoch_windows=windows,
        bundle_windows=windows,
        margin_ms=3 * windows * WINDOW_MS,
        horizon_ms=HOUR_MS,
    )
    network = a_network(n, parameters=[parameters])
    for i in range(windows):
        network.world.publish(i * WINDOW_MS + 500, b'{"i":%d}' % i)
    network.clock.at_ms = GENESIS_MS + windows * WINDOW_MS + 8_000
    network._next_look = network.clock.at_ms
    return network


def holds_all(member: Member, windows: int = WINDOWS) -> bool:
    stored = member.store.windows.load_windows(0, 1 << 60)
    return len(stored) == windows and all(w.state == "held" for w in stored)


def begun(member: Member) -> list[int]:
    """Undecided windows that were worked on."""
    return [row[0] for row in member.rows("SELECT instance_number FROM rounds WHERE state = 'open' AND version > 0")]


def decided_in_order(member: Member) -> list[int]:
    query = "SELECT instance_number FROM rounds WHERE state = 'decided' AND instance_kind = 1"
    return [row[0] for row in member.rows(f"{query} ORDER BY decided_ms, instance_number")]


@pytest.mark.timeout(400)
def test_an_hour_of_windows_is_agreed_oldest_first_and_few_at_a_time(a_network: MakeNetwork) -> None:
    network = a_network_after_an_outage(a_network, 2)
    active = network.network.sets[0].windows_active
    most = 0

    def until() -> bool:
        nonlocal most
        if len(network.log) % 16 == 0:
            most = max(most, *(len(begun(member)) for member in network.members))
        return len(network.log) % 32 == 0 and all(holds_all(member) for member in network.members)

    network.run(until, limit_s=1_200)
    assert 1 < most <= active
    for member in network.members:
        order = decided_in_order(member)
        assert len(order) == WINDOWS
        distance = max(abs(number - sorted(order).index(start)) for number, start in enumerate(order))
        assert distance < 2 * active
        assert len(member.windows()) == WINDOWS


def test_instances_beyond_the_oldest_wait_their_turn_and_say_so(a_network: MakeNetwork) -> None:
    network = a_network_after_an_outage(a_network, 4, windows=20)
    for absent in network.members[2:]:
        absent.away = True  # no quorum: nothing is decided
    member = network.members[0]
    network.run_until(20 * WINDOW_MS + 12_000)
    active = network.network.sets[0].windows_active
    assert sorted(begun(member)) == member.starts()[:active]
    waiting = member.rows("SELECT instance_number FROM rounds WHERE waits_for LIKE 'its turn%' ORDER BY 1")
    assert [row[0] for row in waiting] == member.starts()[active:]
    said = {row[0] for row in member.rows("SELECT instance_number FROM journal")}
    assert said <= set(member.starts()[:active])


# --- state that no source has any more ------------------------------------------------------------------


def prune(member: Member) -> None:
    """From now on this member's sources know blocks, and the state of the epoch's first block, but no other state."""
    first = member.context.cut_points.epoch_config(0)  # read while it was recent
    assert first.committee

    def fetch_state(block: Block) -> ChainState:
        raise TransientError(
            f"RPC sources do not answer eth_call: missing trie node of {block.number}", reason="pruned"
        )

    def permission(*_arguments: Any) -> bool:
        raise TransientError("RPC sources do not answer eth_call: missing trie node", reason="pruned")

    member.chain.fetch_state = fetch_state  # type: ignore[method-assign]
    member.chain.fetch_publish_permission = permission  # type: ignore[method-assign,assignment]


def certify(network: SmallNetwork, holder: Member, instance: InstanceId, records: list[Record]) -> VoteQuorum:
    """A decision of everybody but the last member, with all that belongs to it, in one member's database."""
    context, clock = holder.context, network.clock
    config = context.cut_points.epoch_config(0)
    root = set_root(make_entries(records))
    observations: dict[Digest, Observation] = {}
    for member in network.members[:-1]:
        observation = Observation(
            instance=instance,
            set_root=root,
            count=len(records),
            signed_bytes=sum(r.signed_bytes for r in records),
            observer=member.address,
        )
        observations[holder.store.instances.save_body(encode_observation(observation))] = observation
    outcome, kept = build_outcome(
        instance, scope_of(context, instance), unite(records, {}), observations, 4, config.parameters, None
    )
    holder.store.sets.save_set(set_root(outcome.entries), kept)
    value = holder.store.instances.save_body(encode_outcome(outcome))
    votes = [
        sign_statement(
            Statement(StatementKind.PRECOMMIT, config.digest, instance, 0, value, member.address),
            member.key,
            context.identity.signing,
        )
        for member in network.members[:-1]
    ]
    certificate = build_quorum(votes)
    holder.store.instances.create_instance(instance, config.digest, clock.now_ms())
    stored = holder.store.instances.load_instance(instance)
    assert stored is not None
    change = InstanceChange(b"", None, quorums=(certificate,), certificate=certificate, step="decided")
    holder.store.instances.save_instance(stored, change, clock.now_ms())
    holder.store.due.done("round.advance", str(instance))
    return certificate


@pytest.fixture
def returning(a_network: MakeNetwork, request: pytest.FixtureRequest) -> SmallNetwork:
    """Four members; the first has all certificates, the last comes back with sources that have pruned the state."""
    windows: int = request.param
    network = a_network_after_an_outage(a_network, 4, windows)
    holder, *others, last = network.members
    for other in others:
        other.away = True
    by_window = {i: _record(network, i) for i in range(windows)}
    for i, record in by_window.items():
        certify(network, holder, network.window(i), [record])
    prune(last)
    return network


def _record(network: SmallNetwork, number: int) -> Record:
    return network.world.publish(number * WINDOW_MS + 700, b'{"w":%d}' % number, delays={})


@pytest.mark.timeout(400)
@pytest.mark.parametrize("returning", [WINDOWS], indirect=True)
def test_pruned_state_is_named_and_an_hour_of_windows_is_settled_by_certificates_of_peers(
    returning: SmallNetwork,
) -> None:
    holder, last = returning.members[0], returning.members[-1]
    holder.away = True
    returning.run_until(HOUR_MS + 12_000)
    view = SqlView(
        last.database, returning.clock, address=last.address, network="small", data_dir=last.folder, disk_floor="1"
    )
    shown = view.load_status(WINDOWS).windows
    assert len(shown) == WINDOWS
    reasons = {w.round.waits_for for w in shown if w.round is not None}
    assert {reason.split(":")[0] for reason in reasons} == {"pruned"}
    assert len(behind(last.context, returning.clock.now_ms(), 1_000)) == WINDOWS - LAG_WINDOWS
    holder.away = False
    returning.run(lambda: len(returning.log) % 32 == 0 and holds_all(last), limit_s=600)
    for i in (0, 77, WINDOWS - 1):
        certificate = last.store.instances.load_certificate(returning.window(i))
        body = last.store.instances.load_body(certificate.value) if certificate is not None else None
        assert body is not None
        assert decode_outcome(body).count == 1
        assert [r.message.content for r in last.held(returning.window(i))] == [b'{"w":%d}' % i]
    assert last.rows("SELECT count(*) FROM journal WHERE statement_kind = 1") == [(0,)]
    taken = [ran for ran in returning.log if ran.task == "round.catch_up" and ran.name == "caught up"]
    assert 3 <= len(taken) < 12


@pytest.mark.parametrize("returning", [3], indirect=True)
def test_forged_certificates_are_refused(returning: SmallNetwork) -> None:
    holder, last = returning.members[0], returning.members[-1]
    window = returning.window(0)
    genuine = holder.store.instances.load_certificate(window)
    assert genuine is not None
    short = VoteQuorum(genuine.kind, genuine.config_digest, window, 0, genuine.value, genuine.signatures[:2])
    body = holder.store.instances.load_body(genuine.value)

    def certified(_sender: object, instances: object) -> list[Any]:
        return [(window, body, short)]

    holder.service.certified = certified  # type: ignore[method-assign,assignment]
    returning.run_until(3 * WINDOW_MS + 40_000)
    assert any(ran.task == "round.catch_up" for ran in returning.log if ran.member == last.number)
    assert last.store.instances.load_certificate(InstanceId(InstanceKind.WINDOW, window.number)) is None
