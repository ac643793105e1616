"""The recipes do what they say: their programs run as they stand, over a broker or a stored network on loopback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from logstore import brokers, cli
from logstore.store import LogStore
from tests.broker_parts import STREAM, BrokerParts, a_network, serving
from tests.builders import a_key
from tests.docstring_examples import AT_BROKERS, run_examples
from tests.integration.logstore.conftest import Run
from tests.paths import ROOT
from tests.stored_network import STREAMS, WINDOWS, StoredNetwork
from validator.protocol.codec.message import decode_message
from validator.protocol.parameters import format_network

RECIPES = ROOT / "docs" / "recipes"
HERE = {"dataframe-of-a-day", "live-dashboard", "backfill-late-data", "sql-over-a-year"}
ELSEWHERE = {"prove-a-reading-to-a-contract", "streamr-sdk-both-ways"}
"""Run by tests/integration/contracts/test_recipe.py and tests/integration/broker/test_streamr_sdk.py."""
KEY = a_key(4)


def program_of(recipe: str, language: str = "python") -> str:
    text = (RECIPES / f"{recipe}.md").read_text()
    (found,) = re.findall(rf"^```{language}\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[BrokerParts]:
    parts = BrokerParts(tmp_path / "broker")
    parts.now_ms = time.time_ns() // 1_000_000
    yield parts
    parts.close()


@pytest.fixture
def publisher(parts: BrokerParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody with a key, in an empty folder; the one broker is the one that the chain would name."""
    find = brokers.find_places
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGSTORE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LOGSTORE_CACHE_DIR", str(tmp_path / "cache"))
    Path("network.toml").write_text(format_network(a_network()))
    Path("my.key").write_text(KEY.secret_hex())
    monkeypatch.setenv("LOGSTORE_KEY_FILE", "my.key")
    monkeypatch.setenv("LOGSTORE_NETWORK_FILE", "network.toml")
    with serving(parts.app) as url:

        def find_this(store: LogStore, _none: object) -> Any:
            return find(store, [url])

        for module in ("brokers", "store", "answers"):
            monkeypatch.setattr(f"logstore.{module}.find_places", find_this, raising=False)
        yield


def run_recipe(recipe: str, **names: Any) -> None:
    exec(compile(program_of(recipe), recipe, "exec"), {"STREAM": STREAM, **names})


def test_every_recipe_is_run_somewhere() -> None:
    assert {path.stem for path in RECIPES.glob("*.md")} == HERE | ELSEWHERE


def test_a_day_becomes_a_frame(
    publisher: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no chain, so what is certified cannot be looked at; every signature is."""
    query = LogStore.query
    monkeypatch.setattr(LogStore, "query", lambda store, *words: query(store, *words, verify="signatures"))
    with logstore.connect() as network:
        for reading in (20.0, 22.0):
            network.publish(STREAM, {"temperature": reading})
    run_recipe("dataframe-of-a-day")
    said = capsys.readouterr().out
    assert re.search(r"20\.0 +21\.0 +22\.0 +2$", said, re.MULTILINE), said


def test_a_dashboard_draws_what_comes(publisher: None) -> None:
    with logstore.connect() as network:
        for reading in (20.0, 22.0, 21.0):
            network.publish(STREAM, {"temperature": reading})
    lines: list[str] = []

    class Enough(Exception):
        pass

    def note(line: str, **_how: Any) -> None:
        lines.append(line)
        if len(lines) == 3:
            raise Enough

    with pytest.raises(Enough):
        run_recipe("live-dashboard", print=note)
    assert lines == ["\r▁   20.0", "\r▁█   22.0", "\r▁█▅   21.0"]


def test_what_the_methods_docstrings_show_of_brokers_is_so(
    publisher: None, parts: BrokerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no chain, as above."""
    query = LogStore.query
    monkeypatch.setattr(LogStore, "query", lambda store, *words: query(store, *words, verify="signatures"))
    with logstore.connect() as network:
        network.publish(STREAM, {"temperature": 21.5}, parts.now_ms - 10_000)
        run_examples(AT_BROKERS, network=network, stream=STREAM)


def test_late_data_keeps_its_times_from_a_program_and_from_a_shell(
    publisher: None, parts: BrokerParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [parts.now_ms - 86_400_000 + n * 60_000 for n in range(4)]
    rows = "".join(f"{at},{20 + n}\n" for n, at in enumerate(times[:2]))
    (tmp_path / "readings.csv").write_text("time,temperature\n" + rows)
    run_recipe("backfill-late-data")
    lines = "".join(json.dumps({"time": at, "temperature": 22 + n}) + "\n" for n, at in enumerate(times[2:]))
    (tmp_path / "readings.ndjson").write_text(lines)
    words = program_of("backfill-late-data", "sh").split()
    assert words[:3] + words[-2:] == ["logstore", "publish", "$STREAM", "<", "readings.ndjson"]
    with (tmp_path / "readings.ndjson").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert cli.main(["publish", STREAM, *words[3:-2]]) == 0
    found = [decode_message(row.canonical) for row in parts.store.scan((STREAM, 0), 0, 1 << 50, limit=10)]
    assert [message.timestamp_ms for message in found] == times
    assert [json.loads(message.content)["temperature"] for message in found] == [20.0, 21.0, 22, 23]


def test_a_year_of_bundles_is_a_table(run: Run, stored: StoredNetwork, tmp_path: Path) -> None:
    """In a process of its own, as DuckDB brings threads."""
    program = f"STREAM, START = {STREAMS[0]!r}, '2023-01-01'\n" + program_of("sql-over-a-year")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    most = sum(m.message.stream_id == STREAMS[0] for windows in WINDOWS for window in windows for m in window)
    day, messages = re.findall(r"^0 +(\S+).*? +(\d+) +\d+ +\S+$", done.stdout, re.MULTILINE)[0]
    assert day == "2023-11-14"
    assert int(messages) >= most > 0
