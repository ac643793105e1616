"""logstore query, asked of a broker on loopback that holds and follows the stored network."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pyarrow as pa
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import logstore
from tests.broker_parts import BrokerParts, serving
from tests.builders import GENESIS_MS, a_key
from tests.docstring_examples import AUDITED, run_examples
from tests.fakes.message_store import MemoryMessageStore
from tests.integration.logstore.conftest import Ran, Run
from tests.stored_network import LATE, STREAMS, WINDOWS, StoredNetwork, a_stored_record
from validator.broker.answers import DOOR, Answers
from validator.broker.certified_layer import CertifiedLayer
from validator.broker.gate import Gate, Terms
from validator.broker.slices import SliceSums
from validator.broker.sum_book import SqliteSums
from validator.net.chain.reader import ChainReader
from validator.net.mutual import wire
from validator.net.signed.listener import Limits, SignedListener
from validator.net.signed.signing import Channel, network_digest
from validator.protocol.codec.statement import SigningContext

STREAM = STREAMS[0]
TAIL = a_stored_record(30_000, 90)
EVERYTHING = sorted(
    [
        record
        for records in (*(window for windows in WINDOWS for window in windows), *LATE, (TAIL,))
        for record in records
        if record.message.stream_part == (STREAM, 0)
    ],
    key=lambda record: record.order,
)
NUMBERS = [record.message.sequence_number for record in EVERYTHING]
SPAN = (STREAM, "--from", str(GENESIS_MS), "--to", str(GENESIS_MS + 60_000))


@pytest.fixture(scope="module")
def broker(stored: StoredNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of one that wants to know who asks."""
    folder: Path = tmp_path_factory.mktemp("broker")
    parts = BrokerParts(folder, streams={STREAM: 2})
    parts.now_ms = time.time_ns() // 1_000_000  # a token's life is of today
    network = stored.network
    chain = ChainReader(
        network.consumers.rpc_urls,
        network.contracts,
        deployment_block=network.deployment_block,
        finality="1",
        chain_id=network.chain_id,
    )
    layer = CertifiedLayer(
        network,
        chain,
        network.consumers.gateway_urls,
        folder / "certified",
        parts.store,
        lake_bytes=1 << 24,
        retained_from_ms=lambda: 0,
        now_ms=lambda: parts.now_ms,
    )
    parts.store.insert(EVERYTHING, parts.now_ms)
    while layer.step():
        pass
    parts.broker.network, parts.broker.history = network, layer.history
    context = SigningContext(network.chain_id, network.contracts.report_manager)
    parts.broker.context = context
    parts.broker.gate = Gate(
        parts.broker.address, context, parts.chain, parts.accounts, Terms(), now_ms=lambda: parts.now_ms
    )
    with serving(parts.app) as url:
        yield url
    layer.close()
    chain.close()
    parts.close()


def ask(run: Run, broker: str, *words: str) -> Ran:
    """As a consumer with a balance."""
    key = Path("consumer.key")
    key.write_text((78).to_bytes(32, "big").hex())
    return run("query", *SPAN, "--broker", broker, "--key", key, *words)


def test_an_answer_is_written_as_it_is_verified_and_says_what_rests_on_whose_word(run: Run, broker: str) -> None:
    ran = ask(run, broker)
    assert ran.status == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["sequence_number"] for row in rows] == NUMBERS
    assert [row["sequence_number"] for row in rows if row["set"] is None] == [90]
    assert "late:2" in {row["set"] for row in rows}
    assert ran.err.startswith(f"verified: {len(rows)} messages; ")
    assert "1 message of the tail rest on the word of 0x" in ran.err


def test_the_newest_so_many(run: Run, broker: str) -> None:
    Path("consumer.key").write_text((78).to_bytes(32, "big").hex())
    words = (STREAM, "--last", "3", "--broker", broker, "--key", Path("consumer.key"))
    ran = run("query", *words)
    assert ran.status == 0, ran.err
    assert [json.loads(line)["sequence_number"] for line in ran.out.splitlines()] == NUMBERS[-3:]
    assert ran.err.startswith("verified: ")
    ran = run("query", *words, "--partition", "1")
    assert ran.status == 0, ran.err
    ran = run("query", *words, "--from", "-1h")
    assert (ran.status, ran.out) == (2, "")


def test_a_file_and_a_document(run: Run, broker: str, tmp_path: Path) -> None:
    ran = ask(run, broker, "--format", "arrow", "-o", "out.arrow", "--json")
    assert ran.status == 0, ran.err
    said = ran.document
    assert (said["verdict"], said["messages"], said["as_of"], said["bundles"]) == (
        "verified",
        len(NUMBERS),
        2,
        [0, 1, 2],
    )
    assert said["brokers"][0]["url"] == broker
    table = pa.ipc.open_stream((tmp_path / "out.arrow").read_bytes()).read_all()
    assert table.column("sequence_number").to_pylist() == NUMBERS


def test_forms_and_levels(run: Run, broker: str) -> None:
    ran = ask(run, broker, "--format", "csv", "--verify", "signatures")
    assert ran.status == 0, ran.err
    assert [int(row["sequence_number"]) for row in csv.DictReader(io.StringIO(ran.out))] == NUMBERS
    assert "all of it rests on the word of" in ran.err
    ran = ask(run, broker, "--verify", "none", "--format", "raw", "-o", "out.cbor")
    assert (ran.status, ran.err.partition(":")[0]) == (0, "not verified")
    assert Path("out.cbor").read_bytes() == b"".join(record.canonical for record in EVERYTHING)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((*SPAN, "--broker", "http://127.0.0.1:65535"), 3, "127.0.0.1:65535"),
        ((*SPAN, "--broker", "gopher://x"), 2, "--broker: 'gopher://x': neither https nor http"),
        ((*SPAN,), 2, "no staked node names a broker"),
        ((*SPAN, "--verify", "much"), 2, "--verify: 'much' is none of"),
        ((*SPAN, "--format", "png"), 2, "--format: 'png' is none of"),
        ((*SPAN, "--json"), 2, "name a file with --output"),
        ((*SPAN, "--key", "nowhere"), 2, "--key: nowhere"),
        ((*SPAN, "--partition", "100"), 2, "partition: 100 is none of 0 to 99"),
    ],
)
def test_what_cannot_be_asked_has_a_status_and_a_reason(
    run: Run, words: tuple[str, ...], status: int, said: str
) -> None:
    ran = run("query", *words)
    assert ran.status == status, ran.err
    assert said in ran.err
    assert ran.out == "" or "--json" in words


def test_what_the_broker_refuses_is_said_in_its_words(run: Run, broker: str) -> None:
    ran = run("query", *SPAN, "--broker", broker)
    assert (ran.status, ran.out) == (1, "")
    assert "logstore: denied: http" in ran.err
    assert "HTTP 401: authorization: a login token is needed" in ran.err
    assert ran.err.endswith("; say who asks: --key FILE, or key= in Python\n")
    ran = ask(run, broker, "--partition", "2")
    assert (ran.status, ran.out) == (1, "")
    assert "HTTP 404: partition: the stream has 2" in ran.err


@pytest.fixture(scope="module", params=[0, 1], ids=["the same", "one more"])
def second(request: pytest.FixtureRequest, stored: StoredNetwork) -> Iterator[tuple[str, int]]:
    """A broker that others compare with, and how many messages it holds that the first has not."""
    network, key = stored.network, a_key(79)
    context = SigningContext(network.chain_id, network.contracts.report_manager)
    raw = MemoryMessageStore()
    sums = SliceSums(SqliteSums(":memory:"), raw, from_ms=GENESIS_MS)
    more = [a_stored_record(31_000, 91)][: request.param]
    raw.insert([*EVERYTHING, *more], GENESIS_MS)
    answers = Answers(raw, sums, lambda records: [None for _ in records], key, context, lambda: GENESIS_MS + 60_000)
    channel = Channel(wire.PURPOSE, context, network_digest(network))
    limits = Limits(allow_nets=(ip_network("127.0.0.0/8"),))
    listener = SignedListener(DOOR, dict, answers.perform, key, channel, limits)

    async def head(_: Request) -> JSONResponse:
        return JSONResponse({"broker": f"0x{key.address.hex()}"})

    routes = [Route("/v1/head", head), Route("/{path:path}", listener.handle, methods=["GET", "POST"])]
    with serving(Starlette(routes=routes)) as url:
        yield url, request.param
    sums.close()


def test_an_audit_names_what_the_first_broker_left_out(run: Run, broker: str, second: tuple[str, int]) -> None:
    url, more = second
    Path("consumer.key").write_text((78).to_bytes(32, "big").hex())
    ran = run("audit", *SPAN, "--broker", broker, "--broker", url, "--key", "consumer.key", "--json")
    said = ran.document
    assert ran.status == more, ran.err
    if more:
        assert f"{broker}: messages: 1 message left out that {url} holds" in said["error"]
        assert said["field"] == "messages"
    else:
        assert (said["verdict"], said["messages"], said["lacking"]) == ("verified", len(NUMBERS), 0)


def test_what_the_docstring_shows_of_an_audit_is_so(run: Run, broker: str, second: tuple[str, int]) -> None:
    url, more = second
    start, end = SPAN[SPAN.index("--from") + 1], SPAN[SPAN.index("--to") + 1]
    names = {"stream": STREAM, "start": start, "end": end, "first": broker, "second": url}
    with logstore.connect(key=a_key(78)) as network:
        if more:
            with pytest.raises(AssertionError, match="1 message left out"):
                run_examples(AUDITED, network=network, **names)
        else:
            run_examples(AUDITED, network=network, **names)


def test_an_audit_needs_two(run: Run, broker: str) -> None:
    ran = run("audit", *SPAN, "--broker", broker)
    assert (ran.status, ran.out) == (2, "")
    assert "an audit needs two" in ran.err
