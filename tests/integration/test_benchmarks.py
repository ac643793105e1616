"""Each benchmark runs to its end and says what it leaves out; what it measures is nobody's affair here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import paths

ROOT = paths.ROOT


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ if path is None else {**os.environ, "PATH": path}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_messages_without_compiler_and_node_say_so_and_measure_the_rest(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("messages", "--messages", "600", "--slice", "200", "--json", str(figures), path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "skipped: the C loop" in done.stdout
    assert "skipped: Node" in done.stdout
    written = json.loads(figures.read_text())
    assert written["ours"]["us_best"] > 0
    assert written["ratios"] == {}


def test_a_slice_larger_than_the_corpus_is_refused() -> None:
    done = run("messages", "--messages", "10", "--slice", "20")
    assert done.returncode == 2
    assert "--messages" in done.stderr


def test_reconciliation_finds_every_difference() -> None:
    done = run("reconcile", "--records", "20000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run") == 4


def test_growth_of_agreement_is_measured() -> None:
    done = run("agreement", "--records", "200", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert " 31" in done.stdout


def test_each_step_in_the_life_of_a_window_tells_its_peak(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("memory", "1000", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    assert written["messages"] == 1000
    steps = ["collect", "observe", "fetch", "propose", "obtain", "judge", "decide", "seal", "verify", "report"]
    assert list(written["steps"]) == steps
    assert written["steps"]["propose"]["proposed"] == written["steps"]["verify"]["rows"] == 1000


def test_a_bundles_file_is_compared_with_plain_forms_and_tells_what_it_left_out(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("bundle", "--messages", "2000", "--rounds", "1", "--memory", "2", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    sizes = written["bytes"]
    assert sizes["bundle, best"] < sizes["bundle, default"] < sizes["NDJSON, gzip -6"] < sizes["NDJSON"]
    assert abs(sum(written["tricks"]["columns"].values()) - sizes["bundle, default"]) < 0.01
    assert 64 < written["tricks"]["columns"]["signature"] < 67
    fetched = {name: found["median"] for name, found in written["reads"]["fetched"].items()}
    # A file as small as this one is fetched whole, and its footer again.
    assert (
        fetched["pyarrow, timestamp and content"] < fetched["pyarrow, all columns"] < 2 * written["reads"]["file_bytes"]
    )
    assert ("Polars, all columns" in fetched) is not ("skipped: Polars" in done.stdout)
    assert written["speed"]["verified"] > 0
    assert written["memory"]["messages"] > 2_000
    assert written["memory"]["verify_mib"] > 0


def test_every_format_of_an_export_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("export", "--messages", "1000", "--hours", "2", "--rounds", "1", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    assert {form: told["rows"] for form, told in written["formats"].items()} == dict.fromkeys(
        ("ndjson", "csv", "arrow", "raw"), 2_000
    )


def test_reports_stay_within_their_gas(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("reports", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    assert written["missed"] == []
    assert len(written["reports"]) == 9
    assert all(one["polygon"] > one["gas"] > 100_000 for one in written["reports"])


def test_an_unknown_benchmark_is_refused() -> None:
    assert run("nothing").returncode == 2


def test_a_broker_is_measured_from_the_socket_to_disk_and_from_disk_to_http(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("broker", "--messages", "1500", "--ingested", "600", "--rounds", "1", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    assert "ingest_of_checking" in written
    assert min(figure for name, figure in written.items() if "grew" not in name) > 0


def test_completeness_is_measured_from_store_and_lake(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run("completeness", "--messages", "300", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    (written,) = json.loads(figures.read_text())
    assert written["whole_bytes"] <= written["cut_bytes"] <= written["cut_worst_bytes"] <= 1_000


def test_the_benchmark_of_repair_makes_two_brokers_equal_and_writes_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "repair.json"
    done = run("repair", "--messages", "1000", "--slices", "3", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text())
    assert written["bytes_per_message_at_0"] == 0
    assert written["bytes_per_message_at_0.001"] < written["bytes_per_message_at_0.03"]
