"""What is swept away, what stays, and that nobody misses it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, some_parameters
from validator.steps.agreed import load_outcome
from validator.steps.retention import HOUR_MS, WEEK_MS, epoch_cut_points, sweep

MakeNetwork = Callable[..., SmallNetwork]


def counts(member: Member) -> dict[str, int]:
    tables = ("sets", "identities", "statements", "proofs", "bodies", "journal", "sightings", "chain_states")
    return {table: len(member.rows(f"SELECT 1 FROM {table}")) for table in tables}


def a_final_network(make: MakeNetwork, n: int = 1) -> SmallNetwork:
    network = make(n, brokers=3)
    for i in range(6):
        network.world.publish(i * 500, b'{"i":%d}' % i)
    network.world.publish(900, b'{"late":1}', delays={1: 3_500})
    network.run_to_final()
    return network


def test_nothing_goes_before_the_bundle_is_final(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.world.publish(300, b"{}")
    network.run_to_held(1)
    member = network.members[0]
    before = counts(member)
    network.clock.at_ms += WEEK_MS
    assert sweep(member.context).name == "nothing to do"
    assert counts(member) == before


def test_sets_and_identities_stay_as_long_as_a_late_set_can_reach_them(a_network: MakeNetwork) -> None:
    network = a_final_network(a_network)
    member = network.members[0]
    before = counts(member)
    assert sweep(member.context).name == "nothing to do"
    assert counts(member) == before


def test_an_hour_after_the_end_one_own_statement_and_the_outcome_of_each_instance_are_left(
    a_network: MakeNetwork,
) -> None:
    network = a_final_network(a_network, 4)
    member = network.members[0]
    instances = member.rows("SELECT DISTINCT instance_kind, instance_number FROM statements")
    assert len(instances) == 3
    newest = {
        (kind, number): max(
            member.rows(
                f"SELECT round, statement_kind FROM journal WHERE instance_kind={kind} AND instance_number={number}"
            )
        )
        for kind, number in instances
    }
    files = list((member.folder / "bundles").glob("*.parquet"))
    assert files
    network.clock.at_ms += HOUR_MS + 60_000
    assert sweep(member.context).name == "swept"
    after = counts(member)
    assert (after["statements"], after["proofs"]) == (0, 0)
    assert {
        (kind, number): (round_, what)
        for kind, number, round_, what in member.rows(
            "SELECT instance_kind, instance_number, round, statement_kind FROM journal"
        )
    } == newest
    assert after["bodies"] == 3
    for number in (0, 1):
        assert member.store.instances.load_certificate(network.window(number)) is not None
        assert load_outcome(member.context, network.window(number)) is not None
    assert not any(path.exists() for path in files)
    assert sweep(member.context).name == "nothing to do"


def test_refused_records_and_chain_states_go_after_a_week_but_not_those_of_committees(
    a_network: MakeNetwork,
) -> None:
    network = a_final_network(a_network)
    member = network.members[0]
    starts = member.rows("SELECT hash FROM chain_blocks ORDER BY at_s")
    assert len(starts) > 1
    member.store.windows.save_rejections(GENESIS_MS, [(b"\x01" * 32, "signature", member.address, "")])
    network.clock.at_ms += WEEK_MS + 60_000
    now_ms = network.clock.now_ms()
    sweep(member.context)
    assert member.rows("SELECT 1 FROM rejections") == []
    assert counts(member)["chain_states"] == len(starts), "no later bundle is final: a late set may ask for them"
    member.store.retention.delete_states(now_ms - WEEK_MS, epoch_cut_points(network.network, now_ms), 100)
    # The first window and the epoch begin at one time: that state stays, all others go.
    assert [row[0] for row in member.rows("SELECT block_hash FROM chain_states")] == [starts[0][0]]


def test_a_member_that_sweeps_all_the_time_loses_nothing_it_needs(a_network: MakeNetwork) -> None:
    parameters = some_parameters(epoch_windows=8, bundle_windows=1, margin_ms=6_000, horizon_ms=1_000)
    network = a_network(1, parameters=[parameters])
    for i in range(8):
        network.world.publish(i * 2_000, b'{"i":%d}' % i, delays={0: (i % 4) * 900})
    member = network.members[0]
    looks = swept = 0

    def done() -> bool:
        nonlocal looks, swept
        looks += 1
        if looks % 10 == 0:
            swept += sweep(member.context).name == "swept"
        return member.is_final(8)

    network.run(done, limit_s=240)
    assert swept > 0
    assert counts(member)["sets"] < 8


def test_downloads_that_a_killed_process_left_go_after_a_day(a_network: MakeNetwork) -> None:
    network = a_network(1)
    member = network.members[0]
    now_s = network.clock.now_ms() / 1000
    for name, age_s in (("old", 90_000), ("new", 3_600)):
        folder = member.folder / "downloads" / name
        folder.mkdir(parents=True)
        (folder / "bundle.parquet").write_bytes(b"x")
        os.utime(folder, (now_s - age_s, now_s - age_s))
    assert sweep(member.context).name == "swept"
    assert [p.name for p in (member.folder / "downloads").iterdir()] == ["new"]


@pytest.mark.parametrize("epochs", [1, 5, 1_000])
def test_the_cut_points_of_the_first_the_newest_and_the_next_epoch_are_kept(
    a_network: MakeNetwork, epochs: int
) -> None:
    network = a_network(1, parameters=[some_parameters(last=False)]).network
    span_ms = 4_000
    points = epoch_cut_points(network, GENESIS_MS + epochs * span_ms)
    assert points[0] == GENESIS_MS // 1000 - 4
    assert points[-2:] == [(GENESIS_MS + k * span_ms) // 1000 - 4 for k in (epochs, epochs + 1)]
    assert len(points) <= 202
    assert points == sorted(set(points))
