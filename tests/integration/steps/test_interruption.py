"""A process that ends between any two calls of its ports: nothing is lost, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.fakes.small_network import Entry, Member, SmallNetwork
from validator.ports.queue import Task
from validator.protocol.model import Record
from validator.steps.collect import collect_window

MakeNetwork = Callable[..., SmallNetwork]

ELSEWHERE = (Task.ROUND_DUE, Task.ROUND_OBTAIN, Task.ROUND_CATCH_UP, Task.SETS_MEND, Task.RETENTION_SWEEP)
"""Not killed here: beat's own, and what one validator alone never needs."""
ONE_VOTE_PER_PLACE = (
    "SELECT count(*) FROM (SELECT DISTINCT instance_kind, instance_number, signer, statement_kind, round, value,"
    " valid_round FROM statements) GROUP BY instance_kind, instance_number, signer, statement_kind, round"
)


class KillEverywhere:
    """Kills each task once before each call that it has not been killed at: the next attempt gets one call further."""

    def __init__(self) -> None:
        self.kills: set[tuple[int, str, str, str]] = set()

    def __call__(self, member: Member, task: str, key: str, call: str) -> bool:
        place = (member.number, task, key, call)
        if place in self.kills:
            return False
        self.kills.add(place)
        return True


def publish_some(network: SmallNetwork) -> list[Record]:
    """Five in time everywhere, one in time at one broker, one that comes to one broker after the cut-off."""
    world = network.world
    records = [world.publish(i * 700, b'{"i":%d}' % i) for i in range(5)]
    records.append(world.publish(500, b'{"one":1}', delays={0: 0}))
    records.append(world.publish(900, b'{"late":1}', delays={1: 3_500}))
    return records


def require_everything_once(network: SmallNetwork, records: list[Record]) -> None:
    """Every message stored once, one vote per place, one payment, one report, nothing left to do."""
    for member in network.members:
        stored = [r.leaf for r in (*member.windows(), *member.late())]
        assert sorted(stored) == sorted(r.leaf for r in records)
        votes = member.rows(ONE_VOTE_PER_PLACE)
        assert votes
        assert set(votes) == {(1,)}
        assert member.rows("SELECT count(*) FROM evidence") == [(0,)]
    assert len(network.world.paid()) == 1
    assert [success for success, _ in network.world.sent.values()] == [True]


def lose_queue(member: Member, _entry: Entry) -> None:
    """The task is not delivered again, nor is any other: beat alone finds what is due."""
    member.queue.entries.clear()


@pytest.mark.parametrize("lost", [False, True])
def test_a_validator_whose_every_task_is_killed_at_each_of_its_calls_still_does_everything_once(
    a_network: MakeNetwork, lost: bool
) -> None:
    network = a_network()
    if lost:
        network.on_killed = lose_queue
    records = publish_some(network)
    killer = network.kill_at = KillEverywhere()
    network.run_to_final(limit_s=3_600)
    require_everything_once(network, records)
    for task in Task:
        assert task in ELSEWHERE or len([k for k in killer.kills if k[1] == task]) > 3


@pytest.mark.parametrize("seed", [1, 4])
def test_four_validators_that_die_at_random_and_lose_their_queues_do_everything_once(
    a_network: MakeNetwork, seed: int
) -> None:
    network = a_network(4)
    records = publish_some(network)
    random = Random(seed)
    network.on_killed = lose_queue
    network.kill_at = lambda *_: random.random() < 0.006
    network.run_to_final(limit_s=300)
    assert sum(ran.name == "killed" for ran in network.log) > 3
    require_everything_once(network, records)


def test_what_a_slower_worker_saw_beyond_the_frozen_set_is_pulled_again(a_network: MakeNetwork) -> None:
    """Two workers collect one window; the one that saw less freezes first. The other's etags must not hide the rest."""
    network = a_network()
    seen = network.world.publish(100, b'{"seen":1}')
    start_ms = network.network.genesis_ms
    network.run_until(2_900)
    member, world = network.members[0], network.world
    beyond = world.publish(200, b'{"beyond":1}')
    network.clock.at_ms = start_ms + 3_001
    held, fetch = {b: list(d) for b, d in world.deliveries.items()}, member.source.stream_window
    faster = True

    def fetch_slowly(*arguments: object, **keywords: object) -> object:
        nonlocal faster
        pulls = fetch(*arguments, **keywords)  # type: ignore[arg-type]
        if faster:
            faster = False
            for deliveries in world.deliveries.values():
                deliveries[:] = [d for d in deliveries if d.timestamp_ms != beyond.message.timestamp_ms]
            collect_window(member.context, start_ms)
            world.deliveries.update(held)
        return pulls

    member.source.stream_window = fetch_slowly  # type: ignore[method-assign,assignment]
    collect_window(member.context, start_ms)
    network.run_to_final()
    assert member.held(network.window(0)) == [seen]
    assert member.late() == [beyond]
