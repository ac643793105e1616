"""One of a thing has no plural."""

from __future__ import annotations

import pytest

from validator.quantities import show_count


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 validators"), (1, "1 validator"), (4, "4 validators"), (1_000, "1,000 validators")]
)
def test_one_is_said_without_an_s(number: int, said: str) -> None:
    assert show_count(number, "validator") == said


def test_another_plural_can_be_named() -> None:
    assert [show_count(n, "query", "queries") for n in (1, 2)] == ["1 query", "2 queries"]
