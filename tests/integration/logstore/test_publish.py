"""logstore publish: what it signs is what a real broker on loopback stores, in chains that a restart does not break."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import logstore
from logstore import brokers, cli
from logstore.errors import Refused
from logstore.following import SETTLE_MS, look_again, pace
from logstore.store import LogStore
from tests.broker_parts import STREAM, BrokerParts, a_network, serving
from tests.builders import a_key
from tests.integration.logstore.conftest import Ran
from tests.paths import ROOT
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.model import ContentType, Message
from validator.protocol.parameters import format_network

KEY = a_key(4)
NOBODY = "http://127.0.0.1:65535"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerParts]:
    parts = BrokerParts(tmp_path_factory.mktemp("broker"), streams={STREAM: 4})
    yield parts
    parts.close()


@pytest.fixture(scope="module")
def broker(parts: BrokerParts) -> Iterator[str]:
    with serving(parts.app) as url:
        yield url


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: BrokerParts) -> None:
    """An empty folder with the network's file and a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGSTORE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LOGSTORE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LOGSTORE_NETWORK_FILE", raising=False)
    Path("network.toml").write_text(format_network(a_network()))
    Path("my.key").write_text(KEY.secret_hex())
    parts.now_ms = time.time_ns() // 1_000_000
    parts.source.barred.clear()


def stored(parts: BrokerParts, partition: int = 0, since_ms: int = 0) -> list[Message]:
    rows = parts.store.scan((STREAM, partition), since_ms, 1 << 50, limit=10_000)
    return [decode_message(row.canonical) for row in rows]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Ran:
    capsys.readouterr()
    status = cli.main(["publish", STREAM, *words, "--key", "my.key"])
    said = capsys.readouterr()
    return Ran(status, said.out, said.err)


def test_what_is_published_is_stored_signed_and_one_chain_over_restarts(parts: BrokerParts, broker: str) -> None:
    since_ms = parts.now_ms
    for number in range(2):
        with (
            logstore.connect(key="my.key") as network,
            network.publisher(STREAM, brokers=[broker, NOBODY]) as publisher,
        ):
            sent = publisher.publish({"number": number, "text": "ä"})
            assert (sent.brokers, list(sent.others)) == ((broker,), [NOBODY])
            publisher.publish(bytes([number]))
    found = stored(parts, since_ms=since_ms)
    assert [m.content for m in found] == [
        '{"number":0,"text":"ä"}'.encode(),
        b"\0",
        '{"number":1,"text":"ä"}'.encode(),
        b"\1",
    ]
    assert [m.content_type for m in found] == [ContentType.JSON, ContentType.BINARY] * 2
    assert [verify_message(m) for m in found] == [VALID] * 4
    assert {m.publisher_id for m in found} == {KEY.address}
    assert len({m.msg_chain_id for m in found}) == 1
    places = [(m.timestamp_ms, m.sequence_number) for m in found]
    assert [None if m.prev is None else (m.prev.timestamp_ms, m.prev.sequence_number) for m in found] == [
        None,
        *places[:-1],
    ]


def test_what_was_published_is_read_in_every_form(parts: BrokerParts, broker: str, tmp_path: Path) -> None:
    since_ms = parts.now_ms
    options: dict[str, Any] = {"verify": "signatures", "brokers": [broker]}
    with logstore.connect(key=KEY) as network:
        publisher = network.publisher(STREAM, brokers=[broker])
        for number in range(3):
            publisher.publish({"number": number})
        end = str(parts.now_ms + 60_000)
        span = (STREAM, str(since_ms), end)
        table = network.query(*span, **options).to_arrow()
        contents = table.column("content").to_pylist()[-3:]
        assert contents == [f'{{"number":{number}}}' for number in range(3)]
        unverified = network.query(*span, verify="none", brokers=[broker])
        assert unverified.to_arrow().equals(table)
        assert unverified.proof.count == table.num_rows
        assert list(network.query(*span, **options).to_pandas()["content"])[-3:] == contents
        assert network.query(*span, **options).to_polars()["content"].to_list()[-3:] == contents
        assert network.query(*span, **options).to_parquet(tmp_path / "out.parquet") == table.num_rows
        assert parquet.read_table(tmp_path / "out.parquet").column("content").to_pylist()[-3:] == contents
        newest = network.query(STREAM, end=end, last=2, **options)
        assert [message.content.decode() for message in newest] == contents[-2:]


def test_a_follower_hears_what_comes(parts: BrokerParts, broker: str) -> None:
    with logstore.connect(key=KEY) as network:
        publisher = network.publisher(STREAM, brokers=[broker])
        sent = publisher.publish({"followed": True})
        now_ms = sent.timestamp_ms
        looks: list[float] = []

        def look(pause_s: float) -> None:
            looks.append(pause_s)
            if len(looks) > 1:
                raise TransientError("enough")

        found = []
        looks_of_broker = look_again(
            network,
            STREAM,
            now_ms,
            partition=0,
            verify="signatures",
            brokers=[broker],
            key=KEY,
            clock=lambda: now_ms + SETTLE_MS + 1,
        )
        with pytest.raises(TransientError, match="enough"):
            for rows in pace(looks_of_broker, look):
                found += [row.message.content for row in rows]
        assert found == [b'{"followed":true}']


def test_a_follower_finds_its_brokers_once_in_a_while_and_where_none_answers(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []
    find = brokers.find_places

    def note(store: LogStore, named: Sequence[str]) -> Any:
        found.append(list(named))
        return find(store, [NOBODY] if len(found) == 2 else named)

    monkeypatch.setattr("logstore.brokers.find_places", note)
    monkeypatch.setattr("logstore.following.LOOKS", 3)
    monkeypatch.setattr("logstore.answers.PAUSE_S", 0.0)
    with logstore.connect(key=KEY) as network:
        looks = network.looks(STREAM, "-1m", partition=3, brokers=[broker])
        asked = [(next(looks), len(found))[1] for _ in range(7)]
    assert asked == [1, 1, 1, 2, 3, 3, 3]


def test_a_followers_lines_come_as_they_are_stored_and_ctrl_c_is_the_end(broker: str) -> None:
    words = ["query", STREAM, "--follow", "--from", "-1h", "--broker", broker, "--key", "my.key"]
    with logstore.connect(key=KEY) as network:
        publisher = network.publisher(STREAM, partition=3, brokers=[broker])
        publisher.publish(b"\xff", "-1m")
        program = subprocess.Popen(
            [sys.executable, "-m", "logstore", *words, "--partition", "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert program.stdout is not None
        assert json.loads(program.stdout.readline())["content_hex"] == "ff"
        publisher.publish({"followed": 2})
        assert json.loads(program.stdout.readline())["content"] == '{"followed":2}'
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out, err) == (0, "", "ended after 2 messages\n")


@pytest.mark.parametrize("more", [["--to", "now"], ["--last", "1"], ["-o", "x"], ["--format", "csv"]])
def test_who_follows_asks_for_no_end(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["query", STREAM, "--follow", *more]) == 2
    assert "--follow: not together with" in capsys.readouterr().err


async def test_the_same_with_an_event_loop(parts: BrokerParts, broker: str) -> None:
    since_ms = parts.now_ms
    async with logstore.connect_async(key=KEY) as network:
        network._opened._publishers[STREAM, 0] = network._opened.publisher(STREAM, brokers=[broker])
        await network.publish(STREAM, {"async": 1})
        end = str(parts.now_ms + 60_000)
        async with network.query(STREAM, since_ms, end, verify="signatures", brokers=[broker]) as answer:
            contents = [message.content async for message in answer]
            assert contents[-1] == b'{"async":1}'
            assert answer.proof.count == len(contents)
        async with network.query(STREAM, since_ms, end, verify="none", brokers=[broker]) as answer:
            assert (await answer.to_arrow()).num_rows == len(contents)
    with pytest.raises(RuntimeError, match="async with"):
        await logstore.connect_async().balance()


async def test_who_follows_a_quiet_stream_may_publish_meanwhile(
    parts: BrokerParts, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logstore.following.SETTLE_MS", 0)
    monkeypatch.setattr("logstore.following.LOOK_S", 0.05)
    async with logstore.connect_async(key=KEY) as network:
        network._opened._publishers[STREAM, 3] = network._opened.publisher(STREAM, partition=3, brokers=[broker])
        messages = network.follow(STREAM, time.time_ns() // 1_000_000, partition=3, brokers=[broker])
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        await network.publish(STREAM, {"meanwhile": 1}, partition=3)
        assert (await waiting).content == b'{"meanwhile":1}'


def test_lines_of_standard_input_keep_their_bytes_and_late_data_its_times(
    parts: BrokerParts, broker: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = parts.now_ms - 86_400_000
    lines = [f'{{"at": {late + n}, "value": 1.0}}'.encode() for n in (5, 3, 4)]
    reading, writing = os.pipe()
    os.write(writing, b"\n".join(lines[:2]) + b"\n\n" + lines[2])
    os.close(writing)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        ran = run(capsys, "-", "--partition", "2", "--time-field", "at", "--broker", broker, "--json")
    assert ran.status == 0, ran.err
    assert (ran.document["messages"], ran.document["brokers"]) == (3, {broker: 3})
    assert (ran.document["first_ms"], ran.document["last_ms"]) == (late + 3, late + 5)
    assert [(m.timestamp_ms, m.content) for m in stored(parts, 2)] == [
        (late + 3, lines[1]),
        (late + 4, lines[2]),
        (late + 5, lines[0]),
    ]


def test_one_content_and_what_is_said_of_it(broker: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "-21.5", "--broker", broker, "--time", "-1h")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("published 1 message at 20")
    assert ran.out.endswith(f"held by {broker}\n")


def test_who_may_not_publish_hears_so_in_the_brokers_words(
    parts: BrokerParts, broker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts.source.barred.add(a_key(5).address)
    Path("my.key").write_text(a_key(5).secret_hex())
    ran = run(capsys, "1", "--broker", broker)
    assert ran.status == 1, ran.out
    assert "published" not in ran.out
    assert f"1 of 1 message not taken by any broker: {broker}: not_permitted" in ran.err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("{", "--broker", NOBODY), 2, "content: no JSON"),
        (("1", "--broker", NOBODY, "--time", "soon"), 2, "'soon' is no time"),
        (("1", "--broker", NOBODY, "--time-field", "at"), 2, "no time in 'at'"),
        (("1", "--partition", "100", "--broker", NOBODY), 2, "partition: 100"),
        (("1", "--time", "-1h", "--time-field", "at", "--broker", NOBODY), 2, "not together"),
    ],
)
def test_what_cannot_be_published_has_a_status_and_a_reason(
    words: tuple[str, ...], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(capsys, *words)
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err


def test_refusals_of_a_whole_request_and_nobody_there(
    parts: BrokerParts, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logstore.handing_over.PAUSE_S", 0.0)
    with logstore.connect(key=KEY) as network:
        with pytest.raises(Refused, match="HTTP 404"), network.publisher("0x/none", brokers=[broker]) as publisher:
            publisher.publish(1)
        with pytest.raises(TransientError, match="1 of 1 message"):
            network.publisher(STREAM, brokers=[NOBODY]).publish(1)
        with pytest.raises(ConfigError, match="no JSON value"):
            network.publisher(STREAM, brokers=[broker]).publish({"x": float("nan")})
    with logstore.connect() as network, pytest.raises(ConfigError, match="no key is named"):
        network.publisher(STREAM, brokers=[broker])
    assert json.dumps([m.timestamp_ms for m in stored(parts, 1)]) == "[]"


def test_a_line_that_is_too_long_is_refused_before_it_is_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from logstore.commands import publish

    monkeypatch.setattr(publish, "MAX_LINE_BYTES", 10)
    reading, writing = os.pipe()
    os.write(writing, b"x" * 11)
    with os.fdopen(reading), os.fdopen(writing, "wb"), pytest.raises(ConfigError, match="a line of more than 10"):
        list(publish._lines(reading))
