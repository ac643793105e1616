"""The cache folder: its bound, and several programs at once."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import pytest

from logstore.cache import Cache
from logstore.output import Output
from validator.protocol.errors import ConfigError
from validator.protocol.model import Root, StorageId

QUIET = Output(as_json=True, err=io.StringIO())


def root(number: int) -> Root:
    return Root(bytes([number]) * 32)


def a_cache(folder: Path, limit_bytes: int = 1 << 20, files: int = 0) -> Cache:
    """With files of 1000 bytes, the one with the highest number used last."""
    cache = Cache(folder, limit_bytes)
    for number in range(files):
        path = cache.bundle(number, root(number))
        cache.write(path, bytes(1_000))
        os.utime(path, (number, number))
    return cache


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[0]) for path in (folder / "bundles").iterdir())


def test_what_was_unused_for_longest_goes_until_the_rest_keeps_the_bound(tmp_path: Path) -> None:
    cache = a_cache(tmp_path, 2_500, files=4)
    cache.write(cache.manifest(root(9)), bytes(100))
    assert cache.holds(cache.bundle(0, root(0))), "used now"
    cache.open()
    assert numbers(tmp_path) == [0, 3]
    assert cache.holds(cache.manifest(root(9)))
    assert not cache.holds(cache.bundle(1, root(1)))


def test_nothing_goes_while_another_program_reads(tmp_path: Path) -> None:
    reader = a_cache(tmp_path, files=3)
    reader.open()
    other = Cache(tmp_path, 0)
    other.open()
    assert numbers(tmp_path) == [0, 1, 2]
    reader.close()
    other.open()
    assert numbers(tmp_path) == []


def test_what_killed_programs_have_left_is_tidied(tmp_path: Path) -> None:
    cache = a_cache(tmp_path, files=1)
    cache.write(tmp_path / "unverified" / "1-x.parquet.77-1.part", b"half")
    (tmp_path / "spill-77").mkdir()
    (tmp_path / "spill-77" / "pages").write_bytes(b"x")
    cache.open()
    assert numbers(tmp_path) == [0]
    assert list((tmp_path / "unverified").iterdir()) == []
    assert not (tmp_path / "spill-77").exists()


def test_of_two_that_want_one_bundle_the_second_waits_and_finds_it(tmp_path: Path) -> None:
    caches = [a_cache(tmp_path), a_cache(tmp_path)]
    path = caches[0].bundle(7, root(7))
    found: list[bool] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with caches[1].locked(7, QUIET):
            found.append(caches[1].holds(path))

    for cache in caches:
        cache.open()
    with caches[0].locked(7, QUIET), caches[0].locked(8, QUIET):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        time.sleep(0.05)
        assert found == []
        caches[0].write(path, b"whole")
    thread.join()
    assert found == [True]


def test_a_verified_file_gets_its_name_and_keeps_the_other_for_who_reads_it(tmp_path: Path) -> None:
    cache = a_cache(tmp_path)
    raw, path = cache.unverified(7, StorageId(bytes(32))), cache.bundle(7, root(7))
    cache.write(raw, b"bundle")
    cache.promote(raw, path)
    cache.promote(raw, path)
    assert (raw.read_bytes(), path.read_bytes()) == (b"bundle", b"bundle")
    cache.open()
    assert not raw.exists(), "it counts once"
    assert path.exists()


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*: Not a directory; name another with --cache or LOGSTORE_CACHE_DIR"):
        Cache(tmp_path / "file" / "cache", 1).open()
