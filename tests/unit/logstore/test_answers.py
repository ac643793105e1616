"""A query of a consumer, answered by brokers in this process: honest ones, one that breaks off, and liars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from logstore.answer_check import Verify
from logstore.answers import QueryAnswer
from logstore.brokers import Brokers, Place
from logstore.errors import Refused
from tests.asgi import AsgiClient
from tests.broker_parts import BrokerParts
from tests.builders import GENESIS_MS, a_key, a_record
from tests.certified_world import BUNDLE_MS, NETWORK, STREAM, Broker, World
from validator.broker.gate import Terms
from validator.net.chain.bundles import AcceptedBundles
from validator.net.http.client import Answer as HttpAnswer
from validator.net.http.client import OpenAnswer
from validator.net.http.urls import ParsedUrl, check_url
from validator.protocol.codec.answer import Answer, Request, decode_answer, encode_answer, sign_answer
from validator.protocol.codec.message import make_record, record_from_canonical
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Record

END_MS = GENESIS_MS + 2 * BUNDLE_MS
SPAN = Request(STREAM, 0, GENESIS_MS, END_MS + 1_000)
CONTEXT = SigningContext(NETWORK.chain_id, NETWORK.contracts.report_manager)


def a_row(at_ms: int, number: int) -> Record:
    return a_record(
        stream_id=STREAM, timestamp_ms=GENESIS_MS + at_ms, sequence_number=number, content=b'{"n":%d}' % number
    )


LATE = [a_row(150, 700), a_row(4_100, 701)]
TAIL = [a_row(160, 800), a_row(2 * BUNDLE_MS + 5, 801)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    world.add_bundle(([a_row(10 * n, n) for n in range(60)], [a_row(4_000 + n, n) for n in range(60)]))
    world.add_bundle(([a_row(BUNDLE_MS, 1)], []), LATE)
    return world


Change = Callable[[list[bytes]], list[bytes]]
"""What becomes of the objects of a broker's answer on their way."""


@dataclass
class Served:
    """A broker's paths, called in this process. ``changes``: for one answer each, in turn; then it is honest."""

    parts: BrokerParts
    changes: list[Change]
    is_down: bool = False
    asked: int = 0


def _split(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        yield body[at + 4 : at + 4 + size]
        at += 4 + size


class Loopback:
    """What ``Brokers`` asks with, without a socket. Bodies come in pieces that no frame fits."""

    def __init__(self, served: dict[str, Served]) -> None:
        self._served = served

    def _find(self, base: ParsedUrl) -> Served:
        served = self._served[base.host]
        if served.is_down:
            raise TransientError(f"{base}: no connection")
        return served

    def fetch(self, method: str, base: ParsedUrl, target: str, *, max_bytes: int, deadline_s: float) -> HttpAnswer:
        answer = AsgiClient(self._find(base).parts.app).get(target)
        return HttpAnswer(answer.status_code, {}, answer.content)

    @contextmanager
    def stream(self, method: str, base: ParsedUrl, target: str, *, headers: Any, **_: Any) -> Iterator[OpenAnswer]:
        served = self._find(base)
        served.asked += 1
        answer = AsgiClient(served.parts.app).get(target, None, dict(headers))
        body = answer.content
        if answer.status_code == 200 and served.changes:
            objects = served.changes.pop(0)(list(_split(body)))
            body = b"".join(len(each).to_bytes(4, "big") + each for each in objects)
        pieces = (body[at : at + 777] for at in range(0, len(body), 777))
        yield OpenAnswer(answer.status_code, {}, pieces, framed=True)


class Consumer:
    def __init__(self, world: World) -> None:
        self.world = world
        self.served: dict[str, Served] = {}

    def add(self, name: str, held: list[Record], *changes: Change, **options: Any) -> Served:
        broker: Broker = self.world.broker(f"{name}-{len(list(self.world.folder.iterdir()))}", held, **options)
        parts = BrokerParts(broker.folder / "parts", streams={STREAM: 3}, terms=Terms(balance=False))
        parts.broker.store, parts.broker.history = broker.store, broker.history
        parts.broker.network, parts.broker.context = NETWORK, CONTEXT
        self.served[f"{name}.test"] = served = Served(parts, list(changes))
        return served

    def query(self, verify: Verify = Verify.PROOF, request: Request = SPAN) -> QueryAnswer:
        chain: Any = self.world.chain
        places = [Place(check_url(f"https://{host}", allow_http=False)) for host in self.served]
        return QueryAnswer(
            request,
            verify,
            NETWORK,
            Brokers(places, Loopback(self.served), CONTEXT),
            lambda: AcceptedBundles(chain, NETWORK, chain.fetch_finalised()),
            pause=lambda _: None,
        )

    def close(self) -> None:
        for served in self.served.values():
            served.parts.close()


@pytest.fixture
def consumer(world: World) -> Iterator[Consumer]:
    consumer = Consumer(world)
    yield consumer
    consumer.close()


def everything(world: World) -> list[Record]:
    return sorted([*world.all_records, *TAIL], key=lambda r: r.order)


def is_message(data: bytes) -> bool:
    return data[1:].startswith(b"\x69message/1")


def sign_again(objects: list[bytes], **changed: Any) -> list[bytes]:
    """The same with a trailer that fits the messages, as the broker itself would lie."""
    records = [record_from_canonical(data) for data in objects if is_message(data)]
    root = RunningRoot()
    root.add([record.leaf for record in records])
    fitting = {"count": len(records), "signed_bytes": sum(r.signed_bytes for r in records), "root": root.root()}
    return [*objects[:-1], encode_answer(_signed(decode_answer(objects[-1]), **{**fitting, **changed}))]


def _signed(answer: Answer, **changed: Any) -> Answer:
    return sign_answer(replace(answer, **changed), a_key(77), CONTEXT)


def drop(number: int) -> Change:
    def change(objects: list[bytes]) -> list[bytes]:
        at = [n for n, data in enumerate(objects) if is_message(data)][number]
        return sign_again(objects[:at] + objects[at + 1 :])

    return change


def alter(number: int) -> Change:
    def change(objects: list[bytes]) -> list[bytes]:
        at = [n for n, data in enumerate(objects) if is_message(data)][number]
        message = record_from_canonical(objects[at]).message
        objects[at] = make_record(type(message)(**{**_fields(message), "content": b'{"n":-1}'})).canonical
        return sign_again(objects)

    return change


def _fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def cut_behind(count: int) -> Change:
    """The connection is gone within the message behind so many."""
    return lambda objects: objects[:count]


def swap(objects: list[bytes]) -> list[bytes]:
    first, second = [n for n, data in enumerate(objects) if is_message(data)][:2]
    objects[first], objects[second] = objects[second], objects[first]
    return sign_again(objects)


def other_request(objects: list[bytes]) -> list[bytes]:
    answer = decode_answer(objects[-1])
    return [*objects[:-1], encode_answer(_signed(answer, request=replace(SPAN, until_ms=END_MS)))]


def other_signature(objects: list[bytes]) -> list[bytes]:
    return [*objects[:-1], encode_answer(sign_answer(decode_answer(objects[-1]), a_key(5), CONTEXT))]


def test_an_honest_answer_is_proven_as_far_as_it_is_certified(world: World, consumer: Consumer) -> None:
    consumer.add("whole", everything(world))
    with consumer.query() as answer:
        rows = [row for batch in answer.batches() for row in batch]
    assert [row.record for row in rows] == everything(world)
    proof = answer.proof
    assert [row.record.message.sequence_number for row in rows if row.instance is None] == [800, 801]
    assert (proof.certified_to, proof.as_of, proof.bundles) == (END_MS, 1, (0, 1))
    assert (proof.count, proof.certified) == (len(rows), len(rows) - 2)
    assert "2 messages of the tail rest on the word of 0x" in proof.leaves_open


@pytest.mark.parametrize("verify", [Verify.SIGNATURES, Verify.NONE])
def test_with_less_verification_all_of_it_rests_on_the_brokers_word(
    world: World, consumer: Consumer, verify: Verify
) -> None:
    consumer.add("whole", everything(world))
    answer = consumer.query(verify)
    assert list(answer) == [record.message for record in everything(world)]
    assert answer.proof.certified_to is None
    assert "all of it rests on the word of" in answer.proof.leaves_open


@pytest.mark.parametrize("kept", [0, 1, 30, 61, 62, 63, 64, 100, 125, -1])
@pytest.mark.parametrize("verify", [Verify.PROOF, Verify.SIGNATURES])
def test_a_cut_answer_goes_on_at_another_broker_without_loss_or_duplicate(
    world: World, consumer: Consumer, kept: int, verify: Verify
) -> None:
    consumer.add("first", everything(world), cut_behind(kept))
    other = consumer.add("second", everything(world))
    answer = consumer.query(verify)
    assert list(answer) == [record.message for record in everything(world)]
    assert other.asked == 1
    proof = answer.proof
    assert proof.certified_to == (END_MS if verify is Verify.PROOF else None)
    assert any(part.trailer is None for part in proof.parts) == ("cut" in proof.leaves_open)


def test_a_broker_that_is_down_is_left_for_the_next_and_one_alone_is_an_error(world: World, consumer: Consumer) -> None:
    consumer.add("down", []).is_down = True
    with pytest.raises(TransientError, match="no connection"):
        list(consumer.query())
    consumer.add("whole", everything(world))
    assert len(list(consumer.query())) == len(everything(world))


def test_one_that_always_breaks_off_at_the_same_place_is_given_up(world: World, consumer: Consumer) -> None:
    served = consumer.add("whole", everything(world), *([cut_behind(0)] * 20))
    with pytest.raises(TransientError, match="no trailer"):
        list(consumer.query())
    assert served.asked < 20


@pytest.mark.parametrize(
    ("lie", "verify", "field"),
    [
        (drop(3), Verify.PROOF, "answer window"),
        (drop(16), Verify.PROOF, "answer late"),
        (alter(3), Verify.SIGNATURES, "message.signature"),
        (alter(3), Verify.PROOF, "message.signature"),
        (swap, Verify.NONE, "order"),
        (other_request, Verify.NONE, "trailer.request"),
        (other_signature, Verify.SIGNATURES, "trailer.signature"),
        (lambda objects: sign_again(objects, root=b"\x01" * 32), Verify.SIGNATURES, "trailer.root"),
        (lambda objects: sign_again(objects, count=3), Verify.NONE, "trailer.count"),
        (lambda objects: sign_again(objects, complete_to=END_MS + 1), Verify.PROOF, "trailer.completeTo"),
        (lambda objects: sign_again(objects, broker=bytes(20)), Verify.NONE, "trailer.broker"),
        (lambda objects: [d for d in objects if not d[1:].startswith(b"\x6bset-proof/1")], Verify.PROOF, "answer"),
        (lambda objects: [*objects, objects[0]], Verify.NONE, "trailer"),
    ],
)
def test_a_lie_is_refused_by_name_and_nobody_else_is_asked(
    world: World, consumer: Consumer, lie: Change, verify: Verify, field: str
) -> None:
    consumer.add("liar", everything(world), lie)
    other = consumer.add("honest", everything(world))
    with pytest.raises(Refused) as refused:
        list(consumer.query(verify))
    assert refused.value.fields["field"].startswith(field)
    assert "liar.test" in str(refused.value)
    assert other.asked == 0


def test_a_row_of_the_tail_that_is_said_to_be_certified_is_refused(world: World, consumer: Consumer) -> None:
    consumer.add(
        "liar", everything(world), lambda objects: [d for d in objects if not d[1:].startswith(b"\x6bset-marks/1")]
    )
    with pytest.raises(Refused, match="answer window"):
        list(consumer.query())


def test_an_answer_is_proven_when_it_was_read_and_is_read_once(world: World, consumer: Consumer) -> None:
    consumer.add("whole", everything(world))
    answer = consumer.query()
    with pytest.raises(ConfigError):
        _ = answer.proof
    table = answer.to_arrow()
    assert table.column("sequence_number").to_pylist() == [r.message.sequence_number for r in everything(world)]
    assert table.column("set").null_count == 2
    with pytest.raises(ConfigError):
        list(answer)
