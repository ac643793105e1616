"""Gateways that lie or fail are passed over where another has the truth; where none has it, nothing is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.logstore.conftest import Run
from tests.stored_network import StoredNetwork

LIES: dict[str, dict[str, Any]] = {
    "wrong bytes": {"kind": "wrong_bytes"},
    "cut short": {"kind": "cut_within"},
    "a page with status 200": {"kind": "answer", "status": 200, "body": "<html>all is well</html>"},
    "an empty answer": {"kind": "answer", "status": 200, "body": ""},
    "an error page": {"kind": "answer", "status": 502},
    "sent elsewhere": {"kind": "answer", "status": 302, "headers": {"location": "https://example.com/"}},
    "no answer": {"kind": "cut_before"},
    "without end": {"kind": "endless"},
}
DATA = "/raw/|/[A-Za-z0-9_-]{43}$|/chunk/"
"""Every way in which data is read."""


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_gateway_that_lies_about_a_file_is_passed_over(stored: StoredNetwork, run: Run, lie: dict[str, Any]) -> None:
    """The one named last is asked first. Three lies are as often as a gateway is asked for one thing at most."""
    stored.gateway.fail(path="/raw/", times=1, **lie)
    both = ("--gateway", stored.gateway.url, "--gateway", stored.gateway.same_under_another_name)
    ran = run("verify", "1", *both, "--json")
    assert (ran.status, ran.document["verdict"]) == (0, "verified")
    assert ran.document["messages"] == 5
    assert stored.gateway.faults_left() == 0


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_where_all_gateways_lie_about_a_file_it_is_not_fetched_and_nothing_is_kept(
    stored: StoredNetwork, run: Run, tmp_path: Path, lie: dict[str, Any]
) -> None:
    """What a gateway says is no verdict on the bundle, so that is 3 and not 1."""
    stored.gateway.fail(path=DATA, times=1_000, **lie)
    for words in (["verify", "1"], ["bundle", "fetch", "1"]):
        ran = run(*words, "--json")
        assert (ran.status, ran.document["verdict"]) == (3, "not fetched"), words
        assert f"127.0.0.1:{stored.gateway.port}" in ran.document["error"]
        assert ran.err.count("\n") == 1
    assert [path for path in tmp_path.rglob("*.parquet*") if path.is_file()] == []


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_gateway_that_lies_about_a_transaction_is_passed_over(
    stored: StoredNetwork, run: Run, lie: dict[str, Any]
) -> None:
    stored.gateway.fail(path=f"/tx/{stored.id_text(1)}$", times=1, **lie)
    both = ("--gateway", stored.gateway.url, "--gateway", stored.gateway.same_under_another_name)
    assert run("verify", stored.id_text(1), *both).status == 0
    assert stored.gateway.faults_left() == 0
