"""What a network that goes on says: when it is up, when nothing moves, and when it ends."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.devnet.test_plan import OWNER, a_network
from validator.devnet import living
from validator.devnet.display import Display
from validator.devnet.living import Living
from validator.devnet.plan import STUCK_S, Options, validator_name
from validator.devnet.preparation import make_streams

OPTIONS = Options(keep=True, validators=1)


class Told:
    """Operators that say what they are told to say."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}

    def fetch_statuses(self, names: list[str]) -> dict[str, Any]:
        return dict.fromkeys(names, self.status)


class Place:
    """Stands for the stage as far as the texts ask for it."""

    network = a_network(OPTIONS)
    streams = make_streams(OPTIONS, OWNER)
    broker_urls = ("http://127.0.0.1:5", "http://127.0.0.1:6")
    validators = (type("V", (), {"operator_url": "http://127.0.0.1:7", "name": validator_name(0)}),)


class Folder:
    path = Path("/run")


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def network(said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Living:
    monkeypatch.setattr(living, "now_ms", lambda: Place.network.genesis_ms + 125_000)
    return Living(OPTIONS, cast(Any, Folder), cast(Any, None), Display(said, is_live=False), cast(Any, Place))


def test_a_newcomer_is_told_where_to_look_and_what_to_try(network: Living) -> None:
    text = "\n".join(network.welcome())
    for needed in ("http://127.0.0.1:5/", "http://127.0.0.1:7/", *(s.id for s in Place.streams), "/run/keys/newcomer"):
        assert needed in text
    assert text.count("logstore ") == 3  # one command each
    assert "1 partitions" not in text


def test_the_last_line_says_what_was_done(network: Living) -> None:
    assert "after 2 min 5 s: 0 windows agreed, 0 reports final" in network.closing_line()
    genesis_ms, window_ms = Place.network.genesis_ms, OPTIONS.window_ms
    told = Told()
    told.status = {
        "windows": [
            {"start_ms": genesis_ms + 30 * window_ms, "state": "agreed"},
            {"start_ms": genesis_ms, "state": "open"},
        ],
        "bundles": [{"number": 0, "state": "final"}, {"number": 1, "state": "sealed"}],
    }
    network._look(cast(Any, told))
    assert "31 windows agreed, 1 report final; files in /run" in network.closing_line()


def test_that_nothing_moves_is_said_once_with_its_reason(
    network: Living, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    told.status = {"windows": [{"start_ms": Place.network.genesis_ms, "state": "open", "waits_for": "cut-off"}]}
    network._look(cast(Any, told))
    now_s = time.monotonic()
    monkeypatch.setattr("validator.devnet.living.time.monotonic", lambda: now_s + STUCK_S + 5)
    for _ in range(3):
        network._look(cast(Any, told))
    assert said.getvalue().count("no state has changed for 95 s: window 0: cut-off (validator-1)") == 1
    told.status = {"windows": [{"start_ms": Place.network.genesis_ms, "state": "agreed"}]}
    network._look(cast(Any, told))
    assert said.getvalue().count("no state has changed") == 1
