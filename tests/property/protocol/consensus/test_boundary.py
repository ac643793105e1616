"""Where bundles end: the same for everybody, whatever is agreed beyond."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.world import some_parameters
from validator.protocol.consensus.boundary import AgreedWindow, bundle_length

WINDOWS, BYTES = 5, 1_000
PARAMETERS = some_parameters(bundle_windows=WINDOWS, bundle_bytes=BYTES)
EPOCH_END_MS = 12


def windows(sizes: list[int]) -> list[AgreedWindow]:
    """Windows of one millisecond from 0 on."""
    return [AgreedWindow(i, i + 1, size) for i, size in enumerate(sizes)]


sizes = st.lists(st.one_of(st.integers(0, 400), st.integers(0, 3_000)), max_size=EPOCH_END_MS)


@given(sizes=sizes)
def test_a_bundle_holds_at_least_one_window_and_no_more_than_count_bytes_and_epoch_allow(sizes: list[int]) -> None:
    length = bundle_length(windows(sizes), EPOCH_END_MS, PARAMETERS)
    if length is not None:
        assert 1 <= length <= WINDOWS
        assert length == 1 or sum(sizes[:length]) <= BYTES


@given(sizes=sizes)
def test_a_bundle_is_closed_exactly_if_its_count_its_epoch_or_the_next_windows_bytes_say_so(sizes: list[int]) -> None:
    length = bundle_length(windows(sizes), EPOCH_END_MS, PARAMETERS)
    if length is None:
        assert len(sizes) < WINDOWS
        assert len(sizes) < EPOCH_END_MS
        assert len(sizes) < 2 or sum(sizes) <= BYTES
    else:
        next_is_too_much = len(sizes) > length and sum(sizes[: length + 1]) > BYTES
        assert length in (WINDOWS, EPOCH_END_MS) or next_is_too_much


@given(sizes=sizes, more=sizes)
def test_what_is_agreed_later_never_moves_an_end(sizes: list[int], more: list[int]) -> None:
    before = bundle_length(windows(sizes), EPOCH_END_MS, PARAMETERS)
    after = bundle_length(windows((sizes + more)[:EPOCH_END_MS]), EPOCH_END_MS, PARAMETERS)
    assert before is None or before == after
