"""logstore sql: one view over the verified bundles of a span of time, late messages included."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import logstore
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
        with pytest.raises(ConfigError, match="answers nothing"):
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
    ("words", "named"),
    [
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
