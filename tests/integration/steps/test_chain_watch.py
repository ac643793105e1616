"""The chain replaces blocks that counted as final: that is found, named, and what was read there is read anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, START_S, WorldChain, some_parameters
from validator.protocol.errors import TransientError
from validator.protocol.model import Block, Digest
from validator.steps.chain_watch import LOOK_MS, compare_blocks

MakeNetwork = Callable[..., SmallNetwork]
FOUND = "SELECT number, depth, signed FROM reorganisations ORDER BY at_s"


def stale(member: Member) -> list[int]:
    """Stored cut points that are not the chain's."""
    world = member.network.world
    rows = member.rows("SELECT timestamp_s, hash FROM chain_blocks")
    return [at_s for at_s, digest in rows if world.block(at_s).hash != digest]


@pytest.mark.parametrize("n", [1, 4])
def test_windows_not_yet_observed_are_judged_by_the_block_that_is_there_now(a_network: MakeNetwork, n: int) -> None:
    network = a_network(n)
    for i in range(8):
        network.world.publish(100 + 450 * i, b'{"i":%d}' % i)
    network.run_until(1_500)  # the first window's block is stored, nothing is observed
    member = network.members[0]
    assert member.rows("SELECT 1 FROM chain_blocks")
    network.world.reorganise(12)
    assert stale(member)
    network.run_to_final()
    for one in network.members:
        assert stale(one) == []
        assert {signed for _, _, signed in one.rows(FOUND)} == {""}
        outcome = one.outcome(network.window())
        assert outcome.block_hash == network.world.block(START_S + outcome.block_number).hash
    assert len(member.windows()) == 8


@pytest.mark.parametrize("n", [1, 4])
def test_what_was_agreed_by_a_block_that_is_gone_stays_and_is_named(
    a_network: MakeNetwork, capsys: pytest.CaptureFixture[str], n: int
) -> None:
    network = a_network(n, parameters=[some_parameters(epoch_windows=4)])
    for i in range(8):
        network.world.publish(100 + 450 * i, b'{"i":%d}' % i)
    network.run_to_held(0)
    member = network.members[0]
    instance = network.window()
    agreed, digest = member.outcome(instance), network.committee_digest()
    journal = member.rows("SELECT bytes FROM journal ORDER BY id")
    network.world.reorganise(20)
    capsys.readouterr()
    network.run_to_final(2)
    assert member.outcome(instance) == agreed
    assert member.rows("SELECT bytes FROM journal ORDER BY id")[: len(journal)] == journal
    assert (str(instance) in " ".join(signed for _, _, signed in member.rows(FOUND))) is True
    assert member.another_context().cut_points.epoch_config(0).digest == digest
    said = capsys.readouterr().out
    assert said.count("chain.reorganised") == sum(len(m.rows(FOUND)) for m in network.members)
    assert f"window:{instance.number}" in said


def test_an_epoch_in_which_nothing_was_said_takes_its_committee_from_the_chain_as_it_is(a_network: MakeNetwork) -> None:
    network = a_network(4)
    network.run_until(500)
    before = network.committee_digest()
    member = network.members[0]
    joined = replace(network.world.nodes[0], address=type(network.world.nodes[0].address)(b"\x77" * 20))
    network.world.reorganise(10)
    network.world.nodes = (*network.world.nodes, joined)
    network.clock.at_ms += LOOK_MS
    compare_blocks(member.context)
    network.clock.at_ms += LOOK_MS
    assert member.context.cut_points.epoch_config(0).digest != before
    assert member.rows("SELECT 1 FROM epoch_blocks") == []


def test_sources_that_do_not_answer_change_nothing(a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network = a_network(1)
    network.run_to_held(0)
    member = network.members[0]
    rows = member.rows("SELECT * FROM chain_blocks")
    network.world.reorganise(20)

    def silent(self: WorldChain, numbers: object) -> list[Block]:
        raise TransientError("no majority", reason="disagreement")

    monkeypatch.setattr(WorldChain, "fetch_blocks", silent)
    network.clock.at_ms += LOOK_MS
    with pytest.raises(TransientError):
        compare_blocks(member.context)
    assert member.rows("SELECT * FROM chain_blocks") == rows
    assert member.rows(FOUND) == []


def test_a_look_costs_a_bounded_number_of_blocks_and_reaches_all_in_turn(
    a_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = a_network(1)
    network.run_until(0)
    member = network.members[0]
    genesis_s = GENESIS_MS // 1000
    blocks = [network.world.block(genesis_s + i) for i in range(100)]
    for block in blocks:
        member.store.chain.save_block(block.timestamp_s, block)
    odd = replace(blocks[37], hash=Digest(b"\x99" * 32))
    with member.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE chain_blocks SET hash = ? WHERE at_s = ?", (bytes(odd.hash), odd.timestamp_s)
        )
    asked: list[int] = []
    true_fetch = WorldChain.fetch_blocks

    def counted(self: WorldChain, numbers: list[int]) -> list[Block]:
        asked.append(len(numbers))
        return true_fetch(self, numbers)

    monkeypatch.setattr(WorldChain, "fetch_blocks", counted)
    network.clock.at_ms += 200_000
    found = []
    for _ in range(10):
        network.clock.at_ms += LOOK_MS
        found.append(compare_blocks(member.context))
    assert sum(found) == 1
    assert max(asked) <= 16
    assert stale(member) == []
