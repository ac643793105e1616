"""A query of a consumer, answered by brokers in this process: honest ones, one that breaks off, and liars."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from logstore.answer_check import AnswerCheck, Certified, Row, Verify
from logstore.answer_export import make_batch, make_schema
from logstore.answers import BATCH, FIRST_BATCH, WAIT_S, split_objects
from logstore.errors import Refused
from tests.asked_brokers import CONTEXT, END_MS, SPAN, Change, Consumer, everything, fill
from tests.builders import a_key
from tests.certified_world import World
from validator.protocol.codec import cbor
from validator.protocol.codec.answer import Answer, Claim, Request, decode_answer, encode_answer, sign_answer
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.message import make_record, record_from_canonical
from validator.protocol.codec.slice_claim import SliceClaim, encode_claim, sign_claim
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Root, Window


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return fill(World(tmp_path_factory.mktemp("world")))


@pytest.fixture
def consumer(world: World) -> Iterator[Consumer]:
    consumer = Consumer(world)
    yield consumer
    consumer.close()


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


def without(*kinds: str) -> Change:
    heads = tuple(cbor.encode(kind) for kind in kinds)
    return lambda objects: [data for data in objects if not data[1:].startswith(heads)]


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


@pytest.mark.parametrize("more", [-1, 0, 2])
def test_what_other_brokers_claim_to_hold_is_said(world: World, consumer: Consumer, more: int) -> None:
    key, silent = a_key(78), a_key(79)
    held = len(everything(world)) + more
    span = (SPAN.stream_part, SPAN.from_ms, SPAN.until_ms)
    claim = sign_claim(SliceClaim(key.address, *span, held, Root(bytes(32)), END_MS), key, CONTEXT)
    claims = (Claim(key.address, encode_claim(claim)), Claim(silent.address))
    consumer.add("whole", everything(world), lambda objects: sign_again(objects, claims=claims))
    answer = consumer.query()
    assert len(list(answer)) == len(everything(world))
    proof = answer.proof
    assert dict(proof.others) == {key.address: held, silent.address: None}
    assert proof.more == (((key.address, 2),) if more == 2 else ())
    assert ("says that it holds 2 messages more" in proof.leaves_open) == (more == 2)
    foreign = (Claim(silent.address, encode_claim(claim)),)
    consumer.add("liar", everything(world), lambda objects: sign_again(objects, claims=foreign))
    del consumer.served["whole.test"]
    with pytest.raises(Refused, match=r"trailer\.claims"):
        list(consumer.query())


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
        (without("set-proof/2", "set-climb/1"), Verify.PROOF, "answer"),
        (without("set-proof/2"), Verify.PROOF, "climb"),
        (without("set-climb/1"), Verify.PROOF, "answer window"),
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
    consumer.add("liar", everything(world), without("set-marks/1"))
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


def test_columns_that_nobody_verifies_are_those_of_the_messages_also_where_an_answer_was_cut(
    world: World, consumer: Consumer
) -> None:
    consumer.add("first", everything(world), cut_behind(63))
    consumer.add("second", everything(world))
    found = consumer.query(Verify.NONE).to_arrow()
    assert found.equals(
        pa.Table.from_batches([make_batch([Row(record, None) for record in everything(world)])], schema=make_schema())
    )


@pytest.mark.parametrize(
    ("lie", "field"),
    [
        (swap, "order"),
        (other_request, "trailer.request"),
        (lambda objects: sign_again(objects, count=3), "trailer.count"),
        (lambda objects: [*objects, objects[0]], "trailer"),
    ],
)
def test_columns_that_nobody_verifies_are_still_in_order_and_counted(
    world: World, consumer: Consumer, lie: Change, field: str
) -> None:
    consumer.add("liar", everything(world), lie)
    with pytest.raises(Refused) as refused:
        consumer.query(Verify.NONE).to_arrow()
    assert refused.value.fields["field"] == field


def test_few_messages_are_checked_at_once_first_and_more_later() -> None:
    """Whoever waits sees the first soon; the longer an answer, the cheaper the check of each message."""
    count = 3 * BATCH
    chunks = [write_frame(b"%d" % number) for number in range(count)]
    whole = b"".join(chunks)
    for cut in (chunks, [whole], [whole[at : at + 7] for at in range(0, len(whole), 7)]):
        batches = list(split_objects(cut, clock=lambda: 0.0))
        assert [len(batch) for batch in batches[:3]] == [FIRST_BATCH, 2 * FIRST_BATCH, 4 * FIRST_BATCH]
        assert max(len(batch) for batch in batches) == BATCH
        assert [data for batch in batches for data in batch] == [b"%d" % number for number in range(count)]


def test_what_has_come_does_not_wait_long_for_more() -> None:
    times = iter([0.0, WAIT_S / 2, 2 * WAIT_S, 2 * WAIT_S, 2.5 * WAIT_S, 4 * WAIT_S, 4 * WAIT_S])
    chunks = [write_frame(b"%d" % number) for number in range(4)]
    assert list(split_objects(chunks, clock=times.__next__)) == [[b"0", b"1"], [b"2", b"3"]]


def test_what_came_whole_is_read_before_the_break() -> None:
    def chunks() -> Iterator[bytes]:
        yield write_frame(b"whole") + b"\0\0\0\5cut"
        raise TransientError("gone")

    read = split_objects(chunks())
    assert next(read) == [b"whole"]
    with pytest.raises(TransientError, match="gone"):
        next(read)


def test_a_span_of_a_century_is_begun_without_its_windows() -> None:
    made: list[Window] = []

    def windows() -> Iterator[Window]:
        for start_ms in itertools.count(0, 1_000):
            made.append(Window(start_ms, start_ms + 1_000))
            yield made[-1]

    request = Request("0x/s", 0, 0, 100 * 365 * 86_400_000)
    certified = Certified(0, request.until_ms, windows, range(0), lambda ms: None, lambda number: b"", is_final=True)
    check = AnswerCheck(request, Verify.PROOF, CONTEXT, 0, certified)
    check.begin(a_key(77).address, "http://127.0.0.1")
    assert check.read([]) == []
    assert made == [Window(0, 1_000)]
