"""How each command ends: 0 done, 1 refused, 2 wrong words, 3 not fetched, 130 Ctrl-C; each failure in one line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders import GENESIS_MS
from tests.integration.logstore.conftest import Run
from tests.paths import ROOT
from tests.stored_network import STREAMS, StoredNetwork

SPAN = ["--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 24_000)]
COMMANDS: dict[str, list[str]] = {
    "bundle list": ["bundle", "list"],
    "bundle show": ["bundle", "show", "1"],
    "bundle fetch": ["bundle", "fetch", "1"],
    "bundle sql": ["bundle", "sql", "select 1", *SPAN],
    "bundle export": ["bundle", "export", *SPAN, "-o", "out"],
    "verify": ["verify", "1"],
    "prove": ["prove", STREAMS[0], str(GENESIS_MS + 300)],
    "prove a span": ["prove", STREAMS[0], *SPAN],
    "network show": ["network", "show"],
}
NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_did_what_it_says_is_status_0(run: Run, words: list[str]) -> None:
    ran = run(*words, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.document is not None


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_wrong_words_are_status_2(run: Run, words: list[str]) -> None:
    for more in (["--network", "missing.toml"], ["--cache"], ["--rpc", "ftp://example.com"]):
        ran = run(*words, *more)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), more
        assert ran.err.startswith("logstore: ")


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_chain_that_does_not_answer_is_status_3(run: Run, words: list[str]) -> None:
    ran = run(*words, "--rpc", NOBODY, "--json")
    assert (ran.status, ran.document["verdict"], ran.document["status"]) == (3, "not fetched", 3)
    assert ran.err.count("\n") == 1
    assert not Path("out").exists()


NEEDS_FILES = [name for name in COMMANDS if name not in ("bundle list", "network show")]


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_gateways_that_do_not_answer_are_status_3(run: Run, name: str) -> None:
    ran = run(*COMMANDS[name], "--gateway", NOBODY, "--json")
    assert (ran.status, ran.document["verdict"]) == (3, "not fetched")
    assert "127.0.0.1:1" in ran.err
    assert not Path("out").exists()


@pytest.mark.parametrize("name", [name for name in NEEDS_FILES if name != "verify"])
def test_a_file_that_is_not_the_bundle_of_the_contract_is_status_1(
    stored: StoredNetwork, run: Run, tmp_path: Path, name: str
) -> None:
    """Somebody put other bundles' files where downloads lie; what is refused is not kept."""
    assert run("bundle", "fetch", "0", "--verify", "none").status == 0
    (kept,) = tmp_path.glob("cache/*/unverified")
    for number in range(3):
        (kept / f"{number}-{stored.id_text(number)}.parquet").write_bytes(stored.files[(number + 1) % 3].read_bytes())
    if name == "bundle show":  # it needs the last bytes only, where a gateway has them
        stored.gateway.fail("answer", "/raw/", status=404, times=1_000)
    ran = run(*COMMANDS[name], "--json")
    assert (ran.status, ran.document["verdict"], ran.document["field"]) == (1, "refused", "tags.Bundle-Number")
    assert ran.document["subject"].startswith("bundle ")
    assert ran.err.startswith("logstore: refused: bundle ")
    assert not Path("out").exists()
    stored.gateway.control("faults", method="DELETE")
    for path in kept.iterdir():
        path.unlink()
    assert run(*COMMANDS[name]).status == 0


def test_a_file_that_was_refused_is_fetched_anew(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    assert run("bundle", "fetch", "1", "--verify", "none").status == 0
    (kept,) = tmp_path.glob("cache/*/unverified/*")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert run("bundle", "fetch", "1").status == 1
    assert run("bundle", "fetch", "1").status == 0


def test_a_damaged_file_is_refused_by_verify_as_status_1(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "half.parquet"
    path.write_bytes(stored.files[1].read_bytes()[:2_000])
    for more in ([], ["--offline"]):
        ran = run("verify", path, *more, "--json")
        assert (ran.status, ran.document["verdict"], ran.document["subject"]) == (1, "refused", "half.parquet")
        assert ran.document["field"]


@pytest.mark.parametrize("name", ["bundle fetch", "verify"])
def test_ctrl_c_is_status_130_and_one_line(stored: StoredNetwork, run: Run, tmp_path: Path, name: str) -> None:
    """While a gateway holds its answer back."""
    stored.gateway.fail("silent", "/", times=1_000)
    words = [sys.executable, "-m", "logstore.cli", *COMMANDS[name], "--json", "--network", str(stored.network_file)]
    program = subprocess.Popen(
        [*words, "--cache", str(tmp_path / "cache")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    asked = sum(stored.gateway.stats()["faults"].values())
    while sum(stored.gateway.stats()["faults"].values()) == asked and program.poll() is None:
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (130, "logstore: interrupted\n")
    assert json.loads(out) == {"verdict": "interrupted", "status": 130, "error": "interrupted"}
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".parquet")] == []
