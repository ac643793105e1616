"""Asking operator listeners: answers are bounded and checked, silence is left out or named."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.builders import a_key
from tests.bundle_builder import CONTEXT
from validator.devnet import collect as module
from validator.devnet.collect import Observations, Operators, write_collected
from validator.protocol.codec.outcome import encode_observation
from validator.protocol.codec.statement import encode_statement, sign_statement
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.hashing import hash_object
from validator.protocol.model import Digest, InstanceId, InstanceKind, Observation, Root, Statement, StatementKind

STATUS = {"invalid_rejected": {"bad_signature": 4, "odd": "x"}, "certificates": [{"instance": "window:1"}, 7]}
ANSWERS = {
    "/good/status.json": (200, json.dumps(STATUS).encode()),
    "/good/statements.json": (200, b'{"statements": ["00ff", 3]}'),
    "/good/readyz": (200, b'{"ready": true, "checks": []}'),
    "/list/status.json": (200, b"[]"),
    "/text/status.json": (200, b"<html>"),
    "/busy/status.json": (503, b"{}"),
    "/busy/readyz": (503, b'{"checks": [{"name": "chain", "ok": false, "detail": "no block seen yet"}]}'),
    "/long/status.json": (200, b'"' + b"x" * 5_000 + b'"'),
}


AWAY = {"broker": "broker-2", "from_ms": 5, "to_ms": 9}
DIGEST = Digest(b"\x01" * 32)
WINDOW = InstanceId(InstanceKind.WINDOW, 1)
BODIES = [encode_observation(Observation(WINDOW, Root(bytes(32)), n, n, observer=a_key(n).address)) for n in (1, 2, 3)]


def a_said(number: int, body: bytes | None = None, kind: StatementKind = StatementKind.OBSERVATION) -> dict[str, str]:
    """What a validator hands over of a member's observation."""
    own = BODIES[number - 1]
    key = a_key(number)
    statement = sign_statement(Statement(kind, DIGEST, WINDOW, 0, hash_object(own), key.address), key, CONTEXT)
    return {"statement": encode_statement(statement).hex(), "body": (own if body is None else body).hex()}


def an_answer(*said: dict[str, str], decided: bool = True) -> tuple[int, bytes]:
    used = [hash_object(body).hex() for body in BODIES]
    return 200, json.dumps({"decided": decided, "used": used, "observations": list(said)}).encode()


def shown(*names: str, instance: str = "window:1") -> dict[str, dict[str, object]]:
    """Statuses in which these validators show a certificate."""
    return {name: {"certificates": [{"instance": instance}]} for name in names}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS.get(self.path.split("?")[0], (404, b""))
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def operators() -> Iterator[Operators]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in ("good", "text"):
        ANSWERS.pop(f"/{name}/observations.json", None)
    base = f"http://127.0.0.1:{server.server_port}"
    operators = Operators({name: f"{base}/{name}" for name in ("good", "list", "text", "busy", "long")}, 8)
    yield operators
    operators.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_who_does_not_answer_is_left_out(operators: Operators) -> None:
    assert operators.fetch_statuses(["good", "busy"]) == {"good": STATUS}


def test_the_first_reason_of_who_is_not_ready_is_told(operators: Operators) -> None:
    assert operators.fetch_unready(["good", "busy"]) == {"busy": "chain: no block seen yet"}


def test_an_answer_of_another_shape_is_a_fault(operators: Operators) -> None:
    for name in ("list", "text"):
        with pytest.raises(RemoteFault, match=f"^{name}: /status.json is n"):
            operators.fetch_status(name)


def test_a_busy_one_is_named(operators: Operators) -> None:
    with pytest.raises(TransientError, match=r"^busy does not answer /status\.json"):
        operators.fetch_status("busy")


def test_an_endless_answer_is_cut_off(operators: Operators, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1_000)
    with pytest.raises(RemoteFault, match=r"^long: "):
        operators.fetch_status("long")


def test_statements_that_are_no_text_are_dropped(operators: Operators) -> None:
    assert operators.fetch_votes("good", 1) == ["00ff"]


def test_what_was_collected_is_written_for_the_check(operators: Operators, tmp_path: Path) -> None:
    path = tmp_path / "collected.json"
    killed = {"validator": "good", "signal": "SIGKILL", "at_window": 1, "windows_away": 2, "back_at_window": 5}
    rejected = write_collected(
        path,
        operators,
        ["good"],
        killed=killed,
        votes={"good": ["00ff"]},
        brokers_away=[AWAY],
        chain_away=[{"from_ms": 1, "to_ms": 2}],
    )
    assert rejected == {"good": {"bad_signature": 4, "odd": 0}}
    assert json.loads(path.read_text()) == {
        "invalid_rejected": rejected,
        "killed": {**killed, "certificates": ["window:1"]},
        "statements": {"good": ["00ff"]},
        "brokers_away": [AWAY],
        "chain_away": [{"from_ms": 1, "to_ms": 2}],
    }


def read_bodies(observations: Observations, path: Path) -> list[str]:
    observations.write(path)
    return [json.loads(line)["body"] for line in path.read_text().splitlines()]


def test_observations_are_gathered_from_several_validators_until_all_that_were_used_are_here(
    operators: Operators, tmp_path: Path
) -> None:
    """What one has swept or never had, another keeps; who does not answer is passed over."""
    observations = Observations(operators, CONTEXT)
    ANSWERS["/good/observations.json"] = an_answer(a_said(1), a_said(2))
    observations.look(shown("busy", "good"))
    assert read_bodies(observations, tmp_path / "o") == [BODIES[0].hex(), BODIES[1].hex()]
    ANSWERS["/text/observations.json"] = an_answer(a_said(3))
    observations.look(shown("good", "text"))
    assert read_bodies(observations, tmp_path / "o") == [body.hex() for body in BODIES]


def test_what_is_complete_is_not_asked_for_again(operators: Operators, tmp_path: Path) -> None:
    observations = Observations(operators, CONTEXT)
    ANSWERS["/good/observations.json"] = an_answer(a_said(1), a_said(2), a_said(3))
    observations.look(shown("good"))
    ANSWERS["/good/observations.json"] = (500, b"")
    observations.look(shown("good"))
    assert len(read_bodies(observations, tmp_path / "o")) == 3


def test_an_outcome_that_is_not_there_yet_is_asked_for_again(operators: Operators, tmp_path: Path) -> None:
    observations = Observations(operators, CONTEXT)
    ANSWERS["/good/observations.json"] = (200, b'{"decided": false, "used": [], "observations": []}')
    observations.look(shown("good"))
    ANSWERS["/good/observations.json"] = an_answer(a_said(1), a_said(2), a_said(3))
    observations.look(shown("good"))
    assert len(read_bodies(observations, tmp_path / "o")) == 3


def test_no_validator_can_hand_over_words_that_another_has_not_signed(operators: Operators, tmp_path: Path) -> None:
    """Another body, a vote, another's signature, no bytes at all."""
    forged = a_said(3)
    swapped = {"statement": forged["statement"][:-2] + "00", "body": forged["body"]}
    observations = Observations(operators, CONTEXT)
    ANSWERS["/good/observations.json"] = an_answer(
        a_said(1, BODIES[1]), a_said(2, kind=StatementKind.PREVOTE), swapped, {"statement": "x", "body": "y"}
    )
    observations.look(shown("good"))
    assert read_bodies(observations, tmp_path / "o") == []
