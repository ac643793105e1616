"""Following the contract: what is verified before it counts, and what lies is refused by name and never served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import GENESIS_MS
from tests.bundle_builder import MEMBERS, a_manifest, rows_of
from tests.certified_world import BUNDLE_MS, CONFIG, PART, Broker, World, a_row, read_marked
from validator.ports.certified import NotVerifiedYet
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.bundle_front import read_tail
from validator.protocol.codec.bundle_groups import group_bytes
from validator.protocol.codec.manifest import manifest_root
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Record, Root

SPAN = (GENESIS_MS, GENESIS_MS + 4 * BUNDLE_MS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for number in range(3):
        at = number * BUNDLE_MS
        world.add_bundle(([a_row(at + n, n) for n in range(9)], [a_row(at + 4_000, 1)]), [])
    return world


def numbers(broker: Broker, as_of: int) -> int:
    return len(broker.history.page(PART, *SPAN, as_of, limit=1_000).columns)


def test_a_gateway_that_lies_about_a_files_end_is_overruled_by_chunks_that_are_proven(world: World) -> None:
    ids = [report.storage_id for report in world.chain.reports]
    files = world.gateways.files
    world.gateways.tails = {ids[0]: files[ids[1]], ids[1]: b"\x00" * 4_096, ids[2]: files[ids[2]][:-9]}
    broker = world.broker("overruled")
    assert broker.history.newest() == 2
    assert broker.index.evidence() == []
    assert numbers(broker, 2) == 30


def test_a_report_whose_root_is_not_its_files_is_evidence_and_history_ends_before_it(world: World) -> None:
    honest = world.chain.reports[1]
    world.chain.reports[1] = replace(honest, bundle_root=Root(b"\x66" * 32))
    broker = world.broker("evidence", follow=False)
    for _ in range(2):
        with pytest.raises(RemoteFault, match="bundle 1: bundle root: ") as caught:
            broker.follow()
    assert caught.value.reason == "bundle root"
    assert broker.history.newest() == 0
    (evidence,) = broker.index.evidence()
    assert (evidence.number, evidence.root, evidence.storage_id) == (1, b"\x66" * 32, honest.storage_id)
    with pytest.raises(NotVerifiedYet):
        broker.history.page(PART, *SPAN, 1, limit=1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signers": MEMBERS[:2]}, "2 signers where 3 are needed"),
        ({"number": 4}, "header.number"),
        ({"first_ms": GENESIS_MS + 2 * BUNDLE_MS}, "header.first_ms"),
        ({"previous_root": Root(b"\x01" * 32)}, "header.previous_root"),
    ],
)
def test_a_manifest_that_gives_the_root_and_breaks_a_rule_is_refused(
    world: World, changes: dict[str, object], reason: str
) -> None:
    fields = {
        "config": CONFIG,
        "number": 1,
        "first_ms": GENESIS_MS + BUNDLE_MS,
        "previous_root": manifest_root(world.manifests[0]),
    }
    windows: list[list[Record]] = [[], []]
    manifest = a_manifest(windows, **{**fields, **changes})  # type: ignore[arg-type]
    path = world.folder / "lie.parquet"
    write_bundle(path, manifest, rows_of(manifest, windows))
    said = replace(
        manifest, header=replace(manifest.header, number=1, last_ms=GENESIS_MS + 2 * BUNDLE_MS - BUNDLE_MS // 2)
    )
    world.report(said, path.read_bytes(), manifest_root(manifest))
    broker = world.broker("refused", follow=False)
    with pytest.raises(RemoteFault, match=f"bundle 1: manifest: .*{reason}"):
        broker.follow()
    assert [evidence.reason for evidence in broker.index.evidence()] == ["manifest"]
    assert broker.history.newest() == 0


def test_what_is_no_file_of_a_bundle_is_refused(world: World) -> None:
    world.report(world.manifests[2], b"no Parquet, whatever its tags say")
    broker = world.broker("no-file", follow=False)
    with pytest.raises(RemoteFault, match="bundle 2: file: "):
        broker.follow()
    assert broker.history.newest() == 1


def test_rows_that_do_not_give_their_entrys_root_are_evidence_and_never_served(world: World) -> None:
    storage_id = world.chain.reports[0].storage_id
    other = World(world.folder / "other")
    other.folder.mkdir()
    other.add_bundle(([a_row(n, 8 - n) for n in range(9)], [a_row(4_000, 1)]), [])
    ours, theirs = world.gateways.files[storage_id], next(iter(other.gateways.files.values()))
    spans = [group_bytes(read_tail(len(data), data)[0].groups[0]) for data in (ours, theirs)]
    assert spans[0] == spans[1], "the same shape, so that only the root can tell"
    (start, end), _ = spans
    world.gateways.files[storage_id] = ours[:start] + theirs[start:end] + ours[end:]
    broker = world.broker("rows")
    assert broker.comparing.filled == 21, "what the other two bundles hold, and the window that is as it was"
    with pytest.raises(RemoteFault, match="do not give the root that is certified") as caught:
        broker.history.page(PART, *SPAN, 2, limit=1_000)
    assert caught.value.reason == "entry root"
    assert [evidence.reason for evidence in broker.index.evidence()] == ["entry root"]
    assert len(broker.history.page(PART, GENESIS_MS + BUNDLE_MS, SPAN[1], 2, limit=1_000).columns) == 20


def test_nothing_counts_while_nobody_answers_and_what_counted_stays(world: World) -> None:
    broker = world.broker("outage", world.all_records)
    world.chain.is_down = world.gateways.is_down = True
    with pytest.raises(TransientError):
        broker.follow()
    assert (broker.history.newest(), numbers(broker, 2)) == (2, 30)
    lost = world.broker("lost", world.all_records[:-3], follow=False)
    world.chain.is_down = False
    with pytest.raises(TransientError):
        lost.follow()
    world.gateways.is_down = False
    lost.follow()
    assert numbers(lost, 2) == 30


def test_a_hole_that_nobody_fills_yet_is_an_error_and_not_a_shorter_answer(world: World) -> None:
    broker = world.broker("hole", world.all_records[1:], follow=False)
    broker.bundles.step()
    world.gateways.is_down = True
    with pytest.raises(TransientError):
        broker.history.page(PART, *SPAN, 2, limit=1_000)
    world.gateways.is_down = False
    assert numbers(broker, 2) == 30


def test_reports_of_blocks_that_are_not_final_do_not_count(world: World) -> None:
    world.chain.block = 2
    broker = world.broker("final", world.all_records)
    assert broker.history.newest() == 1
    world.chain.block = 1
    broker.follow()
    assert broker.history.newest() == 1, "a source that lags takes nothing away"
    world.chain.block = 3
    broker.follow()
    assert broker.history.newest() == 2


def test_where_the_contract_holds_another_report_everything_from_there_on_is_read_anew(world: World) -> None:
    broker = world.broker("reorganised", world.all_records)
    before = list(broker.prove(PART, *SPAN, 0))
    del world.manifests[1:], world.chain.reports[1:]
    world.add_bundle(([a_row(BUNDLE_MS, 77)], []))
    broker.follow()
    assert broker.history.newest() == 1
    marked = read_marked(broker.history, PART, GENESIS_MS + BUNDLE_MS, SPAN[1], 1)
    assert [m.row.key.sequence_number for m in marked if m.instance is not None] == [77]
    assert len(marked) == 1 + 20, "what was certified before is tail now"
    assert list(broker.prove(PART, *SPAN, 0)) == before


def test_a_broker_begins_where_its_retention_does_and_reads_older_bundles_behind_that(world: World) -> None:
    broker = world.broker("young", retained_from_ms=GENESIS_MS + 2 * BUNDLE_MS, follow=False)
    assert [bundle.number for bundle in broker.bundles.step()] == [2]
    assert broker.index.numbers() == range(3)
    assert [broker.index.manifest(number) is None for number in range(3)] == [True, True, False]
    assert numbers(broker, 2) == 30
    assert [broker.index.manifest(number) is None for number in range(3)] == [False, False, False]


def test_manifests_in_the_index_are_bounded_and_fetched_again(world: World) -> None:
    broker = world.broker("small", world.all_records)
    broker.index._manifests_bytes = 1
    broker.index.keep_manifest(2, broker.index.manifest(2) or b"")
    assert broker.index.manifest(2) is None
    broker.open()
    assert numbers(broker, 2) == 30
