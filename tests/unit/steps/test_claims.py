"""Claims: one thread works on a key, and whoever comes meanwhile has it looked at once more."""

from __future__ import annotations

from validator.steps.claims import Claims


def test_who_comes_second_leaves_word_and_the_first_looks_once_more() -> None:
    claims = Claims()
    assert claims.acquire("window:1")
    assert not claims.acquire("window:1")
    assert not claims.acquire("window:1")
    assert claims.release_or_rerun("window:1")
    assert not claims.acquire("window:1"), "it is still claimed while the first looks again"
    assert claims.release_or_rerun("window:1")
    assert not claims.release_or_rerun("window:1")
    assert claims.acquire("window:1")


def test_keys_do_not_know_each_other() -> None:
    claims = Claims()
    assert claims.acquire("window:1")
    assert claims.acquire("window:2")
    assert not claims.release_or_rerun("window:2")


def test_what_is_abandoned_is_free_whoever_asked_for_it() -> None:
    claims = Claims()
    assert claims.acquire("window:1")
    assert not claims.acquire("window:1")
    claims.abandon("window:1")
    assert claims.acquire("window:1")
    assert not claims.release_or_rerun("window:1"), "what was asked before is forgotten with it"
    claims.abandon("window:1")
