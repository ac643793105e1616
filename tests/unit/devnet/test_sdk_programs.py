"""What Streamr's SDK read back is held against what the broker says it keeps, message by message."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_key, a_message
from validator.devnet.bus import BusConfig
from validator.devnet.carriers import Carrier, Kind
from validator.devnet.folder import RunFolder
from validator.devnet.network import log_forms, parcel_of
from validator.devnet.sdk_programs import SdkSide, check_with_sdk, read_published
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.model import Message, SignatureType

KEY = a_key(5)
STREAM = f"0x{KEY.address.hex()}/sdk"


def some_messages(count: int) -> list[Message]:
    return [
        a_message(
            KEY,
            stream_id=STREAM,
            partition=number % 2,
            timestamp_ms=1_760_000_000_000 + number,
            signature_type=SignatureType.ECDSA_SECP256K1_EVM,
        )
        for number in range(count)
    ]


def identity(message: Message) -> list[Any]:
    publisher = "0x" + message.publisher_id.hex()
    return [message.timestamp_ms, message.sequence_number, publisher, message.msg_chain_id]


class Run:
    """A folder in which the publisher has ended and the first broker keeps all but the third message."""

    def __init__(self, path: Path) -> None:
        for name in ("logs/sdk", "logs/broker-1", "configs", "sockets"):
            (path / name).mkdir(parents=True)
        self.path = path
        self.folder = RunFolder(path, path / "sockets", (path / "lock").open("wb"))
        self.messages = some_messages(8)
        steps = [{"step": "created", "rssMb": 110}, {"step": "stored", "rssMb": 130}]
        steps += [
            {"step": "published", "rssMb": 120, "data": base64.b64encode(write_protobuf(m)).decode()}
            for m in self.messages
        ]
        lines = [json.dumps(step) for step in steps]
        lines.insert(1, "INFO  something that the SDK says")
        (path / "logs" / "sdk-publish.log").write_text("\n".join(lines) + "\n")
        entries = [
            {"line": form["line"], **({"refused": "unstored"} if number == 2 else {})}
            for number, message in enumerate(self.messages)
            for form in log_forms(parcel_of(message))
            if form["form"] == "protobuf"
        ]
        deliveries = path / "logs" / "broker-1" / "deliveries.jsonl"
        deliveries.write_text("".join(json.dumps(entry) + "\n" for entry in [*entries, *entries[:1]]))

    def check(self, answers: list[dict[str, Any]], status: int = 0) -> dict[str, Any]:
        """With a reader that says ``answers``."""
        said = self.path / "said"
        said.write_text("".join(json.dumps({"error": "", **answer}) + "\n" for answer in answers))
        node = self.path / "node"
        node.write_text(f"#!/bin/sh\ncat {said}\nexit {status}\n")
        node.chmod(0o755)
        carrier = Carrier(Kind.REAL, "", BusConfig(self.path), (), node=str(node))
        side = SdkSide(carrier, KEY, KEY, KEY, {})
        return check_with_sdk(self.folder, side, "http://127.0.0.1:9", read_published(self.folder), {})

    def right_answers(self) -> list[dict[str, Any]]:
        held = [m for number, m in enumerate(self.messages) if number != 2]
        answers = []
        for partition in range(2):
            own = [identity(m) for m in held if m.partition == partition]
            until = self.messages[4].timestamp_ms
            for step, messages in (("last", own), ("from", own), ("range", [m for m in own if m[0] <= until])):
                answers.append({"step": step, "partition": partition, "messages": list(messages), "rssMb": 140})
        return answers


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.folder.close()


def test_what_the_publisher_published_is_written_down_for_the_check(run: Run) -> None:
    assert read_published(run.folder) == run.messages
    lines = (run.path / "logs" / "sdk" / "published.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert {(entry["kind"], entry["stream"]) for entry in entries} == {("message", STREAM)}
    assert [entry["line"] for entry in entries if entry["form"] == "protobuf"] == [
        base64.b64encode(write_protobuf(message)).decode() for message in run.messages
    ]


def test_answers_that_are_what_the_broker_keeps_are_counted(run: Run) -> None:
    facts = run.check(run.right_answers())
    assert facts["failures"] == []
    assert facts["resend"] == {"last": 7, "from": 7, "range": 4}
    assert (facts["published"], facts["stream"], facts["rss_mb"]) == (8, STREAM, 140)


def test_a_message_too_few_one_too_many_and_an_error_are_failures(run: Run) -> None:
    spoils: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda answer: answer["messages"].pop(),
        lambda answer: answer["messages"].append([1, 0, "0x00", "x"]),
        lambda answer: answer.update(error="invalid signature"),
    )
    for spoil in spoils:
        answers = run.right_answers()
        spoil(answers[1])
        (failure,) = run.check(answers)["failures"]
        assert failure.startswith("resend from of partition 0: ")


def test_what_others_brought_the_broker_may_be_read_and_what_is_read_twice_or_in_disorder_may_not(run: Run) -> None:
    mended = run.right_answers()
    mended[1]["messages"].insert(1, identity(run.messages[2]))
    assert run.check(mended)["failures"] == []
    for spoil in (list.reverse, lambda messages: messages.append(messages[-1])):
        answers = run.right_answers()
        spoil(answers[4]["messages"])
        (failure,) = run.check(answers)["failures"]
        assert failure == "resend from of partition 1: out of order, or twice"


def test_a_reader_that_does_not_answer_is_a_failure(run: Run) -> None:
    assert len(run.check([], status=1)["failures"]) == 2


def test_a_publisher_that_came_too_late_is_shown_and_is_no_failure(run: Run) -> None:
    (run.path / "logs" / "sdk-publish.log").write_text('{"step":"done","rssMb":100,"published":0}\n')
    facts = run.check([])
    assert (facts["published"], facts["resend"], facts["failures"]) == (0, {}, [])
