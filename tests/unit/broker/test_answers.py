"""Answers over certified history, as a consumer reads them: proven set by set as they stream, from one or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.asgi import AsgiClient
from tests.broker_parts import BrokerParts
from tests.builders import GENESIS_MS
from tests.certified_world import BUNDLE_MS, LATE_REACH_MS, NETWORK, PART, STREAM, Broker, World, a_row
from validator.broker import proving
from validator.broker.core import ask_nobody
from validator.protocol.codec.answer import Answer, Claim, Request, decode_answer, write_text
from validator.protocol.codec.completeness import decode_climb, decode_commitment, decode_marks, decode_set_proof
from validator.protocol.codec.frames import split_frames
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.completeness import CompletenessCheck, SetCommitment
from validator.protocol.model import Address, Digest, Flag, InstanceId, InstanceKind

FRAMES = "application/vnd.logstore.frames"
END_MS = GENESIS_MS + 2 * BUNDLE_MS
LATE = [a_row(150, 700), a_row(4_100, 701)]
TAIL = [a_row(160, 800), a_row(2 * BUNDLE_MS + 5, 801)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    world.add_bundle(([a_row(10 * n, n) for n in range(300)], [a_row(4_000 + n, n) for n in range(300)]))
    world.add_bundle(([a_row(BUNDLE_MS, 1)], []), LATE)
    return world


class Served:
    """A broker's paths, called in this process."""

    def __init__(self, broker: Broker) -> None:
        self.parts = BrokerParts(broker.folder / "parts", streams={STREAM: 3})
        self.parts.broker.store = broker.store
        self.parts.broker.history = broker.history
        self._client = AsgiClient(self.parts.app)

    def get(self, **asked: Any) -> httpx.Response:
        path = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0/messages"
        params = {name.rstrip("_"): str(value) for name, value in {"from_": GENESIS_MS, "to": END_MS, **asked}.items()}
        return self._client.get(path, params, {"accept": FRAMES, "authorization": self.parts.token()})

    def head(self) -> Any:
        return self._client.get("/v1/head").json()


@pytest.fixture(scope="module")
def brokers(world: World) -> Iterator[list[Served]]:
    """One that holds everything and a tail, and one that keeps nothing."""
    served = [
        Served(world.broker("whole", [*world.all_records, *TAIL])),
        Served(world.broker("lake", retained_from_ms=END_MS + 1)),
    ]
    yield served
    for each in served:
        each.parts.close()


def objects(body: bytes) -> Iterator[bytes]:
    return split_frames(body, len(body))


class Reader:
    """A consumer: reads parts of an answer, whoever gives them, and checks what is certified of them."""

    def __init__(self, world: World, as_of: int, from_ms: int = GENESIS_MS, until_ms: int = END_MS) -> None:
        self.complete_to = GENESIS_MS + (as_of + 1) * BUNDLE_MS
        windows = NETWORK.windows_between(from_ms, min(until_ms, self.complete_to))
        late = range(max(0, from_ms - GENESIS_MS) // BUNDLE_MS, as_of + 1)
        sets = [InstanceId(InstanceKind.WINDOW, window.start_ms) for window in windows]
        sets += [
            InstanceId(InstanceKind.LATE, number)
            for number in late
            if GENESIS_MS + (number + 1) * BUNDLE_MS - LATE_REACH_MS < until_ms
        ]
        self.check = CompletenessCheck(PART, from_ms, until_ms, sets, world.root_of)
        self.span = (from_ms, until_ms)
        self.climbs = 0
        self.numbers: list[int] = []
        self.certified = b""
        self.tail: list[int] = []

    def read(self, body: bytes) -> Answer:
        *items, last = objects(body)
        marks: dict[Digest, int | None] = {}
        for item in items:
            if item[1:].startswith(b"\x6bset-marks/1"):
                marks |= decode_marks(item)
            elif item[1:].startswith(b"\x6bset-climb/1"):
                self.check.climb(decode_climb(item))
                self.climbs += 1
            elif item[1:].startswith(b"\x6bset-proof/2"):
                self.check.prove(decode_set_proof(item, *self.span))
                self.certified += item
            else:
                self._read_message(item, marks)
        return decode_answer(last)

    def _read_message(self, canonical: bytes, marks: dict[Digest, int | None]) -> None:
        record = record_from_canonical(canonical)
        ms, number = record.message.timestamp_ms, record.message.sequence_number
        self.numbers.append(number)
        late = marks.get(record.leaf, -1)
        if ms >= self.complete_to or late is None:
            self.tail.append(number)
            return
        window = NETWORK.window_at(ms)
        assert window is not None
        instance = (
            InstanceId(InstanceKind.WINDOW, window.start_ms) if late == -1 else InstanceId(InstanceKind.LATE, late)
        )
        self.check.add(instance, ms, record.leaf, record.message.publisher_id)
        self.certified += canonical


def test_whole_answers_of_two_brokers_are_proven_and_alike_where_they_are_certified(
    world: World, brokers: list[Served]
) -> None:
    for as_of in (0, 1):
        readers = [Reader(world, as_of) for _ in brokers]
        for reader, served in zip(readers, brokers, strict=True):
            answer = reader.read(served.get(asOf=as_of, proof="full").content)
            assert (answer.as_of, answer.complete_to, answer.next) == (as_of, reader.complete_to, b"")
            reader.check.finish()
            assert reader.climbs == as_of + 1, "one for both windows of a bundle"
        assert readers[0].certified == readers[1].certified
        tails = [[700, 800, 701, 1], []] if as_of == 0 else [[800], []]
        assert [reader.tail for reader in readers] == tails


def test_the_way_up_is_said_with_the_proof_of_a_window_alone(world: World, brokers: list[Served]) -> None:
    reader = Reader(world, 0, GENESIS_MS + 100, GENESIS_MS + 2_000)
    asked = {"from_": GENESIS_MS + 100, "to": GENESIS_MS + 2_000, "asOf": 0}
    reader.read(brokers[0].get(proof="full", **asked).content)
    reader.check.finish()
    assert reader.climbs == 0


def test_windows_beyond_those_of_one_climb_have_a_climb_of_their_own(
    world: World, brokers: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "CLIMBED", 1)
    reader = Reader(world, 1)
    reader.read(brokers[0].get(asOf=1, proof="full").content)
    reader.check.finish()
    assert reader.climbs == 2, "the last window of each bundle is alone then"


def test_an_answer_in_parts_from_both_brokers_in_turn_is_proven_as_a_whole(world: World, brokers: list[Served]) -> None:
    reader = Reader(world, 1)
    asked: dict[str, Any] = {"asOf": 1}
    for turn in range(100):
        answer = reader.read(brokers[turn % 2].get(proof="full", limit=97, **asked).content)
        if not answer.next:
            break
        asked = {"cursor": write_text(answer.next)}
    reader.check.finish()
    whole = Reader(world, 1)
    whole.read(brokers[1].get(asOf=1, proof="full").content)
    assert [n for n in reader.numbers if n != 800] == whole.numbers


def test_only_who_asks_for_more_than_what_is_held_here_is_told_what_others_claim(brokers: list[Served]) -> None:
    """Validators ask every broker themselves, window by window: nobody asks around for each of their questions."""
    broker, asked = brokers[0].parts.broker, []

    async def ask_others(request: Request) -> Sequence[Claim]:
        asked.append(request)
        return [Claim(Address(b"\x07" * 20), b"")]

    broker.ask_others = ask_others
    answers = [
        decode_answer([*objects(brokers[0].get(**of).content)][-1]) for of in ({"asOf": 1}, {}, {"asOf": "none"})
    ]
    broker.ask_others = ask_nobody
    assert [len(answer.claims) for answer in answers] == [1, 1, 0]
    assert len(asked) == 2


def test_a_commitment_names_every_set_and_no_proof(world: World, brokers: list[Served]) -> None:
    *items, _ = objects(brokers[0].get(proof="commitment").content)
    said = [decode_commitment(item, PART) for item in items if item[1:].startswith(b"\x70set-commitment/1")]
    expected = [
        SetCommitment(number, c.outcome.instance, next((e for e in c.outcome.entries if e.stream_part == PART), None))
        for number, manifest in enumerate(world.manifests)
        for c in manifest.windows
    ]
    assert said[: len(expected)] == expected
    assert [s.instance for s in said[len(expected) :]] == [InstanceId(InstanceKind.LATE, n) for n in range(2)]
    assert not any(item[1:].startswith((b"\x6bset-proof/2", b"\x6bset-climb/1")) for item in items)


def test_without_proof_an_answer_says_up_to_where_it_is_certified(brokers: list[Served]) -> None:
    *items, last = objects(brokers[0].get().content)
    answer = decode_answer(last)
    assert (answer.as_of, answer.complete_to, answer.count, answer.flags) == (1, END_MS, len(items), Flag(0))
    assert brokers[0].head()["newest"] == 1
    assert brokers[0].head()["complete_to"] == END_MS


@pytest.mark.parametrize(
    ("asked", "field"), [({"asOf": 2}, "asOf"), ({"proof": "some"}, "proof"), ({"asOf": "x"}, "asOf")]
)
def test_what_is_not_certified_here_is_refused_by_name(
    brokers: list[Served], asked: dict[str, Any], field: str
) -> None:
    answer = brokers[0].get(**asked)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_where_history_fails_an_answer_does_without_unless_it_was_asked_for(world: World) -> None:
    served = Served(world.broker("behind", TAIL[:1], retained_from_ms=END_MS + 1))
    world.gateways.is_down = True
    try:
        answer = served.get()
        assert (answer.status_code, decode_answer(list(objects(answer.content))[-1]).as_of) == (200, None)
        for asked in ({"asOf": 1}, {"proof": "full"}):
            refused = served.get(**asked)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert served.parts.server.answers.used == 0
    finally:
        world.gateways.is_down = False
        served.parts.close()
