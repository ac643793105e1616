"""logstore bundle list | show | fetch over real contracts and a real gateway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.builders import GENESIS_MS
from tests.integration.logstore.conftest import Run
from tests.paths import ROOT
from tests.stored_network import STREAMS, StoredNetwork


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_the_list_is_what_the_contract_holds_newest_first(stored: StoredNetwork, run: Run) -> None:
    ran = run("bundle", "list", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.document["accepted"] == 3
    assert [(b["bundle"], b["root"], b["storage_id"]) for b in ran.document["bundles"]] == [
        (n, f"0x{stored.roots[n].hex()}", stored.id_text(n)) for n in (2, 1, 0)
    ]
    assert [(b["first_ms"] - GENESIS_MS, b["end_ms"] - GENESIS_MS) for b in ran.document["bundles"]] == [
        (16_000, 24_000),
        (8_000, 16_000),
        (0, 8_000),
    ]


def test_the_list_for_people_is_a_table_without_colour_in_a_pipe(stored: StoredNetwork, run: Run) -> None:
    ran = run("bundle", "list")
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert all(stored.id_text(n) in ran.out for n in range(3))
    assert "3 of 3 bundles of that time; the contract has accepted 3" in ran.out


def test_a_span_of_time_names_the_bundles_that_hold_windows_of_it(run: Run) -> None:
    def numbers(from_ms: int, to_ms: int) -> list[int]:
        ran = run("bundle", "list", "--from", str(GENESIS_MS + from_ms), "--to", str(GENESIS_MS + to_ms), "--json")
        return [b["bundle"] for b in ran.document["bundles"]]

    assert numbers(0, 1) == [0]
    assert numbers(7_999, 8_000) == [0]
    assert numbers(7_999, 8_001) == [1, 0]
    assert numbers(8_000, 16_000) == [1]
    assert numbers(15_999, 90_000) == [2, 1]
    assert numbers(24_000, 90_000) == []
    assert numbers(-9_000, 0) == []


def test_the_newest_are_listed_where_there_are_more_than_asked_for(run: Run) -> None:
    ran = run("bundle", "list", "--limit", "2", "--json")
    assert [b["bundle"] for b in ran.document["bundles"]] == [2, 1]


def test_a_bundles_entries_are_shown_per_window_and_late_set(run: Run) -> None:
    ran = run("bundle", "show", "0", "--json")
    assert ran.status == 0
    first, second = ran.document["windows"]
    assert [(e["stream"], e["partition"], e["messages"]) for e in first["entries"]] == [
        (STREAMS[0], 0, 5),
        (STREAMS[0], 1, 5),
        (STREAMS[1], 0, 1),
    ]
    assert [e["messages"] for e in second["entries"]] == [1, 1]
    assert ran.document["messages"] == 13
    late = run("bundle", "show", "2", "--json").document["late"]
    assert [(e["stream"], e["messages"]) for e in late["entries"]] == [(STREAMS[0], 1)]
    shown = run("bundle", "show", "2").out
    assert "late" in shown
    assert STREAMS[1] in shown


def test_what_a_bundle_holds_is_asked_for_once(stored: StoredNetwork, run: Run) -> None:
    assert run("bundle", "show", "1", "--json").status == 0
    stored.gateway.fail("answer", "/", times=100)
    assert run("bundle", "show", "1", "--json").document["messages"] == 5


def test_what_a_bundle_holds_needs_its_last_bytes_only(run: Run, tmp_path: Path) -> None:
    assert run("bundle", "show", "1", "--json").document["messages"] == 5
    (cache,) = (tmp_path / "cache").iterdir()
    assert folders(cache) == ["manifests"]


def test_a_gateway_that_lies_about_the_last_bytes_is_found_out_by_the_root(
    stored: StoredNetwork, run: Run, tmp_path: Path
) -> None:
    """Then the whole file is fetched, which is checked against its transaction."""
    stored.gateway.fail("wrong_bytes", "/raw/", times=1)
    assert run("bundle", "show", "1", "--json").document["messages"] == 5
    assert stored.gateway.faults_left() == 0
    (cache,) = (tmp_path / "cache").iterdir()
    assert folders(cache) == ["bundles", "manifests", "unverified"]


def test_a_bundle_is_fetched_as_a_file_that_any_reader_opens(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    ran = run("bundle", "fetch", "1", "2", "--output", "files", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert [(f["file"], f["verified"]) for f in ran.document] == [
        ("files/bundle-1.parquet", True),
        ("files/bundle-2.parquet", True),
    ]
    for number in (1, 2):
        path = tmp_path / "files" / f"bundle-{number}.parquet"
        assert path.read_bytes() == stored.files[number].read_bytes()
        assert pq.read_table(path).num_rows
    assert sorted(p.name for p in (tmp_path / "files").iterdir()) == ["bundle-1.parquet", "bundle-2.parquet"]


def test_bundles_of_a_span_of_time_are_fetched(run: Run, tmp_path: Path) -> None:
    span = ("--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 9_000))
    assert run("bundle", "fetch", *span, "--verify", "none").status == 0
    assert sorted(p.name for p in tmp_path.glob("*.parquet")) == ["bundle-0.parquet", "bundle-1.parquet"]


def test_a_damaged_manifest_in_the_cache_is_fetched_again(run: Run, tmp_path: Path) -> None:
    assert run("bundle", "show", "1").status == 0
    (kept,) = tmp_path.glob("cache/*/manifests/*")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1] + b"x"):
        kept.write_bytes(damaged)
        assert run("bundle", "show", "1", "--json").document["messages"] == 5
        assert kept.read_bytes() == whole


def test_the_bound_of_the_cache_is_the_environments(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("bundle", "fetch", "0", "1").status == 0
    held = sorted(path.name for path in tmp_path.glob("cache/*/bundles/*"))
    assert len(held) == 2
    monkeypatch.setenv("LOGSTORE_CACHE_MIB", "0")
    assert run("bundle", "fetch", "2").status == 0
    (left,) = tmp_path.glob("cache/*/bundles/*")
    assert left.name.startswith("2-")
    monkeypatch.setenv("LOGSTORE_CACHE_MIB", "plenty")
    assert run("bundle", "fetch", "2").status == 2


def test_several_programs_fetch_the_same_bundles_at_once(stored: StoredNetwork, tmp_path: Path) -> None:
    """Each as if it were alone; of each bundle the gateway is asked once for the whole file."""
    words = [sys.executable, "-m", "logstore.cli", "bundle", "fetch", "0", "1", "2"]
    words += ["--network", str(stored.network_file), "--cache", str(tmp_path / "cache")]
    before = stored.gateway.stats()["requests"]
    programs = [
        subprocess.Popen(
            [*words, "-o", str(tmp_path / str(n))], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for n in range(3)
    ]
    said = [program.communicate(timeout=120) for program in programs]
    assert [(program.returncode, err) for program, (_, err) in zip(programs, said, strict=True)] == [(0, b"")] * 3
    for n in range(3):
        for number in range(3):
            assert (tmp_path / str(n) / f"bundle-{number}.parquet").read_bytes() == stored.files[number].read_bytes()
    asked = stored.gateway.stats()["requests"]
    assert asked["GET /raw"] - before["GET /raw"] == 3
