"""logstore sql: one view over the verified bundles of a span of time, late messages included."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import duckdb
import pytest

import logstore
from logstore.query import open_messages, start_query
from tests.builders import GENESIS_MS, a_key
from tests.integration.logstore.conftest import Run
from tests.stored_network import STREAMS, StoredNetwork
from validator.protocol.errors import ConfigError


def ask(run: Run, query: str, *more: str, from_ms: int = 0, to_ms: int = 90_000) -> Any:
    span = ("--from", str(GENESIS_MS + from_ms), "--to", str(GENESIS_MS + to_ms))
    ran = run("sql", query, *span, *more, "--json")
    assert ran.status == 0, ran.err
    return ran.document


def test_messages_of_all_bundles_are_counted(run: Run) -> None:
    assert ask(run, "select bundle, count(*) n, sum(late::int) late from messages group by 1 order by 1") == [
        {"bundle": 0, "n": 13, "late": 0},
        {"bundle": 1, "n": 5, "late": 0},
        {"bundle": 2, "n": 3, "late": 1},
    ]


def test_a_span_holds_its_late_messages_though_they_lie_in_later_bundles(run: Run) -> None:
    query = "select sequence_number n, late, bundle from messages where stream_id like '%/a' order by timestamp"
    assert ask(run, query, from_ms=600, to_ms=701) == [
        {"n": 6, "late": False, "bundle": 0},
        {"n": 60, "late": True, "bundle": 2},
        {"n": 7, "late": False, "bundle": 0},
    ]


def test_publishers_times_and_fields_of_contents_are_what_people_compare(run: Run) -> None:
    own = f"0x{a_key(1).address.hex()}"
    query = f"""select timestamp, content->>'$.unit' unit, (content->'$.number')::int number, content_bytes
                from messages where publisher_id = '{own}' and sequence_number = 3"""
    (row,) = ask(run, query)
    assert row == {"timestamp": "2023-11-14T22:13:20.300Z", "unit": "K", "number": 3, "content_bytes": None}


def test_for_people_the_answer_is_a_table(run: Run) -> None:
    span = ("--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 8_000))
    ran = run("sql", "select stream_id, count(*) messages from messages group by 1 order by 1", *span)
    assert ran.status == 0
    assert STREAMS[0] in ran.out
    assert "\x1b" not in ran.out


def test_a_program_asks_the_same(stored: StoredNetwork, run: Run, tmp_path: Path) -> None:
    with logstore.connect(stored.network_file, cache=tmp_path / "own") as store:
        relation = store.sql("select count(*) n from messages", start=GENESIS_MS, end=GENESIS_MS + 16_000)
        gc.collect()
        assert relation.fetchall() == [(19,)]
        with pytest.raises(ConfigError, match="0 statements"):
            store.sql("-- nothing", start=GENESIS_MS)


def test_where_nothing_is_stored_the_view_is_empty(run: Run) -> None:
    assert ask(run, "select count(*) n, max(content) c from messages", from_ms=-5_000, to_ms=0) == [{"n": 0, "c": None}]
    assert run("sql", "select * from messages").status == 0, "the last hour"


def test_bundles_are_fetched_once(stored: StoredNetwork, run: Run) -> None:
    assert ask(run, "select count(*) n from messages") == [{"n": 21}]
    stored.gateway.fail("answer", "/", times=100)
    assert ask(run, "select count(*) n from messages") == [{"n": 21}]


def test_without_verification_files_are_taken_as_they_are_and_verified_later(run: Run, tmp_path: Path) -> None:
    assert ask(run, "select count(*) n from messages", "--verify", "none") == [{"n": 21}]
    (cache,) = (tmp_path / "cache").iterdir()
    assert len(list((cache / "unverified").iterdir())) == 3
    assert not (cache / "bundles").exists()
    assert ask(run, "select count(*) n from messages") == [{"n": 21}]
    assert len(list((cache / "bundles").iterdir())) == 3


@pytest.mark.parametrize(
    "query",
    [
        "copy (select 1) to 'stolen.csv'",
        "copy (select 1) to '{held}' (use_tmp_file false)",
        "explain analyze copy (select 1) to '{held}' (use_tmp_file false)",
        "select * from read_text('network.toml')",
        "select * from 'other.parquet'",
        "select * from glob('*')",
        "attach 'other.db'",
        "set enable_external_access = true",
        "install httpfs",
        "select 1; copy (select 1) to 'stolen.csv'",
        "export database 'folder'",
        "",
    ],
)
def test_a_strangers_query_reads_the_messages_and_nothing_else(run: Run, tmp_path: Path, query: str) -> None:
    for _ in range(2):  # the second tidies after the first
        assert ask(run, "select count(*) n from messages") == [{"n": 21}]
    held = next(tmp_path.glob("cache/*/bundles/0-*.parquet"))
    (tmp_path / "other.parquet").write_bytes(held.read_bytes())
    (tmp_path / "network.toml").write_text("a secret")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ran = run("sql", query.format(held=held), "--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 90_000))
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("logstore: SQL: ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_files_of_this_machine_are_reached_where_that_is_asked_for(run: Run, tmp_path: Path) -> None:
    query = f"copy (select count(*) n from messages) to '{tmp_path}/counted.csv'"
    span = ("--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 90_000))
    assert run("sql", query, *span, "--allow-files").status == 0
    assert (tmp_path / "counted.csv").read_text() == "n\n21\n"


def test_what_does_not_fit_into_memory_goes_to_the_cache_folder_for_a_while(tmp_path: Path) -> None:
    query = "select count(*) from (select distinct md5(i::varchar) from range(1000000) t(i))"
    with open_messages([], 0, 1, tmp_path) as connection:
        assert (
            start_query(connection, "select current_setting('temp_directory')")
            .fetchall()[0][0]
            .startswith(str(tmp_path))
        )
        with pytest.raises(duckdb.Error, match="locked"):
            connection.execute("set temp_directory = '.tmp'")
        assert start_query(connection, query).fetchall() == [(1_000_000,)]
    assert list(tmp_path.iterdir()) == []


def test_an_answer_is_a_table_json_or_csv(run: Run) -> None:
    query = "select '=1+1' formula, -1 below, true yes, {'a': [1]} nested, null nothing, 1/0 endless, 'a,b' comma"
    csv = run("bundle", "sql", query, "--format", "csv")
    assert (csv.status, csv.err) == (0, "")
    assert csv.out.splitlines() == [
        "formula,below,yes,nested,nothing,endless,comma",
        '\'=1+1,-1,true,"{""a"": [1]}",,inf,"a,b"',
    ]
    said = run("sql", query, "--format", "json")
    assert said.out == run("sql", query, "--json").out
    both = run("sql", query, "--format", "csv", "--json")
    assert (both.status, both.document["error"]) == (2, "--json and --format csv: say one of them")
    assert said.document == [
        {
            "formula": "=1+1",
            "below": -1,
            "yes": True,
            "nested": {"a": [1]},
            "nothing": None,
            "endless": "inf",
            "comma": "a,b",
        }
    ]
    assert "=1+1" in run("sql", query).out
    long = "select repeat('x', 5000) as wide"
    assert run("sql", long, "--json").document == [{"wide": "x" * 5_000}]
    assert len(run("sql", long).out) < 1_000, "a table is for eyes"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["select 1", "--format", "xml"], "--format"),
        (["select 1; select 2"], "2 statements"),
        (["selec 1"], "SQL: Parser Error"),
        (["select nothing from messages"], "nothing"),
        (["select * from read_parquet('https://example.com/x.parquet')"], "SQL:"),
        (["select 1", "--verify", "some"], "--verify"),
        (["select 1", "--from", "later"], "later"),
    ],
)
def test_a_wrong_question_is_status_2_and_one_line(run: Run, words: list[str], named: str) -> None:
    ran = run("sql", *words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert named in ran.err
