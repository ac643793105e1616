"""Shares of a bundle's rows: recounted apart they say what a recount of the whole says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bundle_groups import write_groups, write_streams
from validator.protocol.codec.bundle_file import verify_bundle_file, verify_front, verify_share
from validator.protocol.codec.bundle_shares import Share, plan_shares
from validator.protocol.errors import MalformedInput


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "sound"
    write_streams(path, (6, 9, 3, 6))
    return path


def plan(path: Path, most: int) -> list[Share]:
    with path.open("rb", buffering=0) as file:
        return plan_shares(*verify_front(file), most)


def verify_shares(path: Path, most: int) -> int:
    with path.open("rb", buffering=0) as file:
        footer, manifest = verify_front(file)
        return sum(verify_share(file, footer, manifest, share) for share in plan_shares(footer, manifest, most))


def test_shares_are_cut_where_a_partition_and_a_row_group_end(sound: Path, tmp_path: Path) -> None:
    write_groups(tmp_path / "bundle", pq.read_table(sound), sound, 3)
    assert [share.groups for share in plan(tmp_path / "bundle", 1)] == [range(8)]
    assert [share.groups for share in plan(tmp_path / "bundle", 2)] == [range(5), range(5, 8)]
    assert [share.groups for share in plan(tmp_path / "bundle", 4)] == [range(2), range(2, 5), range(5, 8)]
    assert [share.groups for share in plan(tmp_path / "bundle", 9)] == [range(2), range(2, 5), range(5, 6), range(6, 8)]
    assert [len(share.parts) for share in plan(tmp_path / "bundle", 2)] == [2, 2]


def test_a_partition_that_ends_within_a_row_group_ends_no_share(sound: Path, tmp_path: Path) -> None:
    write_groups(tmp_path / "bundle", pq.read_table(sound), sound, 5)
    assert [(share.groups, len(share.parts)) for share in plan(tmp_path / "bundle", 9)] == [
        (range(3), 2),
        (range(3, 5), 2),
    ]
    write_groups(tmp_path / "bundle", pq.read_table(sound), sound, 24)
    assert [share.groups for share in plan(tmp_path / "bundle", 9)] == [range(1)]


def test_no_rows_are_one_share(tmp_path: Path) -> None:
    write_streams(tmp_path / "bundle", (0,))
    assert plan(tmp_path / "bundle", 9) == [Share(range(0), frozenset())]
    assert verify_shares(tmp_path / "bundle", 9) == 0


def wrong_orders() -> Iterator[list[int]]:
    """At seams and elsewhere: a row in its successor's place and the other way round; twice, without its successor."""
    order = list(range(24))
    for n in (5, 9, 14):
        yield [*order[:n], n + 1, n, *order[n + 2 :]]
        yield [*order[: n + 1], n, *order[n + 2 :]]
    yield order[::-1]
    yield [*order[15:], *order[:15]]


def holds(verify: Callable[[], int]) -> bool:
    try:
        return verify() == 24
    except MalformedInput:
        return False


def test_what_is_wrong_is_wrong_in_a_share_of_its_own(sound: Path, tmp_path: Path) -> None:
    path, table = tmp_path / "bundle", pq.read_table(sound)
    for order in (list(range(24)), *wrong_orders()):
        rows: Any = table.take(pa.array(order))
        write_groups(path, rows, sound, 3)
        is_sound = holds(lambda: verify_bundle_file(path).rows)
        assert is_sound == (order == list(range(24)))
        assert holds(lambda: verify_shares(path, 9)) == is_sound
