"""Ends of bundles, one by one."""

from __future__ import annotations

import pytest

from tests.fakes.world import some_parameters
from validator.protocol.consensus.boundary import AgreedWindow, bundle_length

PARAMETERS = some_parameters(bundle_windows=3, bundle_bytes=100)


@pytest.mark.parametrize(
    ("sizes", "epoch_end_ms", "length"),
    [
        ([], 10, None),
        ([1], 10, None),
        ([1, 1, 1], 10, 3),
        ([1, 1, 1, 1], 10, 3),
        ([1, 1], 2, 2),
        ([60, 40], 10, None),
        ([60, 41], 10, 1),
        ([60, 40, 1], 10, 2),
        ([101], 10, None),  # alone it may be larger; whether it is alone, the next window says
        ([101, 0], 10, 1),
        ([101], 1, 1),
    ],
)
def test_a_bundle_closes_at_the_count_the_bytes_or_the_epochs_end(
    sizes: list[int], epoch_end_ms: int, length: int | None
) -> None:
    agreed = [AgreedWindow(i, i + 1, size) for i, size in enumerate(sizes)]
    assert bundle_length(agreed, epoch_end_ms, PARAMETERS) == length
