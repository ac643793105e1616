"""What a disk lost is noticed, said once, and obtained again; a disk that does not let us look has lost nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import some_parameters
from tests.segments import load_set
from validator.protocol.codec.outcome import decode_observation
from validator.protocol.errors import TransientError
from validator.protocol.model import Root
from validator.steps.retention import WEEK_MS, sweep
from validator.store.segment_format import DamagedSegment
from validator.store.segments import SegmentStore

MakeNetwork = Callable[..., SmallNetwork]
Damage = Callable[[Path], None]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def gone(path: Path) -> None:
    path.unlink()


def flipped_message(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])


def flipped_index(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])


ANY_DAMAGE = [emptied, halved, zeroed, gone, flipped_message, flipped_index]


def files(member: Member) -> list[Path]:
    return [path for path in (member.folder / "sets").rglob("*.zst") if path.parent.name != "damaged"]


def damage_all(member: Member, damage: Damage) -> int:
    """Damage every set of a validator whose process has ended; a new one begins."""
    paths = files(member)
    for path in paths:
        damage(path)
    member.restart()
    return len(paths)


def is_whole(member: Member) -> bool:
    """Every set of which there is a row can be read, and nothing waits to be mended."""
    roots = [Root(root) for (root,) in member.rows("SELECT set_root FROM sets")]
    fresh = SegmentStore(str(member.folder / "sets"))
    if not roots or member.store.sets.damaged(1):
        return False
    try:
        return all(len(list(load_set(fresh, root))) >= 0 for root in roots)
    except DamagedSegment:
        return False


def publish(network: SmallNetwork, offsets: Iterable[int] = range(50, 3_650, 120)) -> None:
    for i, offset_ms in enumerate(offsets):
        network.world.publish(offset_ms, b'{"i":%d}' % i)


@pytest.mark.parametrize("n", [4, 1])
@pytest.mark.parametrize("damage", ANY_DAMAGE)
def test_a_damaged_set_is_obtained_again(a_network: MakeNetwork, damage: Damage, n: int) -> None:
    network = a_network(n)
    publish(network)
    network.run_to_held(1)
    victim = network.members[0]
    assert damage_all(victim, damage) > 0
    network.run_to_final()
    network.run(lambda: is_whole(victim), limit_s=60)


def test_one_validator_alone_collects_again_what_was_agreed_though_brokers_have_more_by_now(
    a_network: MakeNetwork,
) -> None:
    network = a_network(1)
    publish(network)
    network.world.publish(700, b'{"late":1}', delays={0: 4_000, 1: 4_000})
    network.run_to_held(0)
    victim = network.members[0]
    held = victim.held(network.window())
    network.run_until(6_000)
    damage_all(victim, gone)
    network.run_to_final()
    assert victim.held(network.window()) == held
    assert [r.message.content for r in victim.late()] == [b'{"late":1}']


def test_an_observed_set_that_was_damaged_before_the_decision_is_obtained_from_who_fetched_it(
    a_network: MakeNetwork,
) -> None:
    network = a_network(4, brokers=3)
    publish(network)
    network.world.publish(333, b'{"only":"here"}', delays={2: 0})
    instance = network.window()
    network.run_until(0)
    leader, *_, victim = network.leaders(instance)
    for member in network.members:
        if member is not victim:
            member.source.down.add(network.world.brokers[2])

    def fetched() -> bool:
        window = victim.store.windows.load_window(instance.number)
        if window is None or window.observation is None:
            return False
        body = victim.store.instances.load_body(window.observation)
        assert body is not None
        return leader.store.sets.has_set(decode_observation(body).set_root)

    network.run(fetched, limit_s=30)
    victim.source.down.update(network.world.brokers)  # no broker has it any more
    observed = {Root(root) for (root,) in victim.rows("SELECT set_root FROM sets WHERE count > 0")}
    damage_all(victim, halved)
    network.run(lambda: all(victim.store.sets.has_set(root) for root in observed), limit_s=30)
    network.run_to_final()
    assert b'{"only":"here"}' in [r.message.content for r in victim.held(instance)]


def test_without_its_own_observed_set_a_validator_votes_for_no_fresh_proposal_and_hears_the_decision(
    a_network: MakeNetwork,
) -> None:
    network = a_network(4)
    publish(network)
    instance = network.window()
    network.run_until(0)
    victim = network.leaders(instance)[-1]

    def collected() -> bool:
        window = victim.store.windows.load_window(instance.number)
        return window is not None and window.observation is not None

    network.run(collected, limit_s=30)
    victim.source.down.update(network.world.brokers)
    network.world.deliveries = {broker: [] for broker in network.world.brokers}
    damage_all(victim, emptied)
    network.run_to_held(0)
    network.run_to_final()
    assert victim.held(instance) == network.members[0].held(instance)


def test_a_damaged_late_set_is_obtained_again(a_network: MakeNetwork) -> None:
    network = a_network(4, brokers=3, parameters=[some_parameters(epoch_windows=4)])
    publish(network)
    network.world.publish(900, b'{"late":1}', delays={1: 3_500})
    network.run_to_final(1)
    victim = network.members[0]
    assert len(victim.late()) == 1
    damage_all(victim, zeroed)
    network.run_to_final(2)
    network.run(lambda: is_whole(victim), limit_s=60)
    assert [r.message.content for r in victim.late()] == [b'{"late":1}']


def test_damage_is_found_at_the_start_though_nobody_reads_the_set_and_is_said_once(
    a_network: MakeNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    network = a_network(4)
    publish(network)
    network.run_to_final()
    victim = network.members[0]
    count = damage_all(victim, halved)
    capsys.readouterr()
    network.run(lambda: len(files(victim)) == count and is_whole(victim), limit_s=60)
    said = capsys.readouterr().out
    assert said.count("set.damaged") == count == len(list((victim.folder / "sets" / "damaged").iterdir()))


def test_a_disk_that_does_not_let_us_look_has_lost_nothing(a_network: MakeNetwork) -> None:
    network = a_network(1)
    publish(network)
    network.run_to_held(1)
    victim = network.members[0]
    rows = victim.rows("SELECT * FROM sets ORDER BY set_root")
    folder = victim.folder / "sets"
    folder.rename(victim.folder / "unmounted")
    victim.restart()
    (root,) = [Root(row[0]) for row in victim.rows("SELECT set_root FROM sets WHERE count > 0")][:1]
    with pytest.raises(TransientError, match="not there"):
        victim.store.sets.load_entries(root)
    with pytest.raises(TransientError, match="not there"):
        victim.store.sets.glance(None)
    assert victim.rows("SELECT * FROM sets ORDER BY set_root") == rows
    (victim.folder / "unmounted").rename(folder)
    network.run_to_final()
    assert victim.rows("SELECT * FROM damaged_sets") == []


def test_an_unreadable_file_is_not_a_damaged_one(a_network: MakeNetwork) -> None:
    network = a_network(1)
    publish(network)
    network.run_to_held(0)
    victim = network.members[0]
    path = next(path for path in files(victim) if path.stat().st_size > 200)
    data = path.read_bytes()
    path.unlink()
    path.mkdir()  # what open() says is an error of the system, and nothing about the bytes
    victim.restart()
    with pytest.raises(TransientError, match="cannot read"):
        victim.store.sets.load_entries(Root(bytes.fromhex(path.stem)))
    assert victim.store.sets.has_set(Root(bytes.fromhex(path.stem)))
    path.rmdir()
    path.write_bytes(data)
    network.run_to_final()


def test_an_outcome_whose_bytes_were_altered_is_fetched_from_who_signed_it(a_network: MakeNetwork) -> None:
    network = a_network(4)
    publish(network)
    network.run_to_held(1)
    victim = network.members[0]
    with victim.database.write() as connection:
        connection.execute(text("UPDATE bodies SET bytes = X'00' WHERE kind = 'outcome'"))
    victim.restart()
    network.run_to_final()
    assert victim.held(network.window()) == network.members[1].held(network.window())


@pytest.mark.parametrize("damage", [gone, halved, zeroed])
def test_a_bundle_file_is_written_again(a_network: MakeNetwork, damage: Damage) -> None:
    network = a_network(1)
    publish(network)
    member = network.members[0]
    member.storage.unavailable = True
    network.run(lambda: "sealed" in member.states(), limit_s=60)
    (path,) = (member.folder / "bundles").glob("*.parquet")
    good = path.read_bytes()
    damage(path)
    member.storage.unavailable = False
    network.run_to_final()
    assert path.read_bytes() == good


def test_a_downloads_folder_that_cannot_be_written_is_waited_for(a_network: MakeNetwork) -> None:
    network = a_network(4)
    publish(network)
    victim = network.members[0]
    folder = victim.folder / "downloads"
    folder.write_bytes(b"")  # no folder can be made there
    network.run(lambda: all(m.is_final() for m in network.members[1:]) and network.clock.now_ms() > 0, limit_s=120)
    assert not victim.rows("SELECT 1 FROM announcements WHERE state = 'refused'")
    assert not [ran for ran in network.log if ran.member == victim.number and ran.name == "refused"]


def test_files_of_damaged_sets_and_of_ended_savings_are_swept_after_a_week(a_network: MakeNetwork) -> None:
    network = a_network(1)
    publish(network)
    network.run_to_held(0)
    member = network.members[0]
    damage_all(member, halved)
    network.run_to_final()
    folder = member.folder / "sets"
    left = [*(folder / "damaged").iterdir()]
    unfinished = folder / "00ff.tmp"
    unfinished.write_bytes(b"half of a set")
    fresh = folder / "11ff.tmp"
    fresh.write_bytes(b"being written now")
    assert left
    network.clock.at_ms += WEEK_MS
    for path in [*left, unfinished]:
        os.utime(path, (network.clock.at_ms // 1000 - 2 * WEEK_MS // 1000,) * 2)
    os.utime(fresh, (network.clock.at_ms // 1000,) * 2)
    sweep(member.context)
    assert [path for path in [*left, unfinished, fresh] if path.exists()] == [fresh]


def test_a_damaged_set_that_nobody_needs_any_more_is_forgotten(a_network: MakeNetwork) -> None:
    network = a_network(1)
    publish(network)
    network.run_to_final()
    member = network.members[0]
    with member.database.write() as connection:
        connection.execute(text("DELETE FROM bodies"))
    damage_all(member, gone)
    network.run(lambda: bool(member.store.sets.damaged(1)), limit_s=60)
    network.run(lambda: not member.store.sets.damaged(1), limit_s=60)
