"""Asking operator listeners: answers are bounded and checked, silence is left out or named."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from validator.devnet import collect as module
from validator.devnet.collect import Operators, write_collected
from validator.errors import RemoteFault, TransientError

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
    rejected = write_collected(path, operators, ["good"], killed=killed, votes={"good": ["00ff"]})
    assert rejected == {"good": {"bad_signature": 4, "odd": 0}}
    assert json.loads(path.read_text()) == {
        "invalid_rejected": rejected,
        "killed": {**killed, "certificates": ["window:1"]},
        "statements": {"good": ["00ff"]},
    }
