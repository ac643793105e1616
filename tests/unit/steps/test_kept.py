"""What is kept in memory is the newest few, and what nobody asked for goes first."""

from __future__ import annotations

from validator.steps.kept import Kept


def test_whoever_was_not_asked_for_longest_gives_way() -> None:
    kept: Kept[str, int] = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    assert kept.put("c", 3) == 3
    assert [kept.get(key) for key in "abc"] == [1, None, 3]
    assert len(kept) == 2


def test_what_is_put_again_is_new() -> None:
    kept: Kept[str, int] = Kept(2)
    for key, value in (("a", 1), ("b", 2), ("a", 4), ("c", 3)):
        kept.put(key, value)
    assert [kept.get(key) for key in "abc"] == [4, None, 3]


def test_what_is_forgotten_is_gone() -> None:
    kept: Kept[str, int] = Kept(2)
    kept.put("a", 1)
    kept.forget("a")
    kept.forget("never there")
    assert kept.get("a") is None
