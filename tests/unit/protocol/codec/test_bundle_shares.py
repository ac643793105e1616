"""Shares of a bundle's rows: recounted apart they say what a recount of the whole says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bundle_groups import write_groups, write_streams
from validator.protocol.codec.bundle_file import read_manifest, verify_bundle_file, verify_front, verify_share
from validator.protocol.codec.bundle_shares import plan_shares
from validator.protocol.errors import MalformedInput


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four streams, the first with late messages, in two windows each."""
    path = tmp_path_factory.mktemp("bundles") / "sound"
    write_streams(path, (6, 9, 3, 6))
    return path


def plan(path: Path, most: int) -> list[tuple[int, int, int]]:
    return [(share.first, share.end, len(share.entries)) for share in plan_shares(read_manifest(path), most)]


def verify_shares(path: Path, most: int) -> int:
    with path.open("rb", buffering=0) as file:
        footer, manifest = verify_front(file)
        return sum(verify_share(file, footer, manifest, share) for share in plan_shares(manifest, most))


def test_shares_end_where_an_entry_ends_but_not_among_late_messages(sound: Path) -> None:
    assert plan(sound, 1) == [(0, 24, 9)]
    assert plan(sound, 2) == [(0, 15, 5), (15, 24, 4)]
    assert plan(sound, 3) == [(0, 11, 4), (11, 18, 3), (18, 24, 2)]
    ends = [6, 11, 15, 17, 18, 21, 24]
    assert [end for _, end, _ in plan(sound, 24)] == ends


def test_no_rows_are_no_share(tmp_path: Path) -> None:
    write_streams(tmp_path / "bundle", (0,))
    assert plan(tmp_path / "bundle", 9) == []
    assert verify_shares(tmp_path / "bundle", 9) == 0


def wrong_orders() -> Iterator[list[int]]:
    """At seams and elsewhere: a row in its successor's place and the other way round; twice, without its successor."""
    order = list(range(24))
    for n in (2, 5, 10, 14):
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
        write_groups(path, rows, sound, 4)
        is_sound = holds(lambda: verify_bundle_file(path).rows)
        assert is_sound == (order == list(range(24)))
        assert holds(lambda: verify_shares(path, 24)) == is_sound
