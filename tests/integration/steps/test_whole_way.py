"""From brokers to a final report, with everything outside as fakes: what is there at the end, and what was paid."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.small_network import SmallNetwork

MakeNetwork = Callable[..., SmallNetwork]


@pytest.mark.parametrize("n", [1, 4])
def test_messages_of_two_windows_and_a_late_one_end_in_one_final_report(a_network: MakeNetwork, n: int) -> None:
    network = a_network(n, brokers=3)
    for member in network.members:
        member.reader.in_child = True
    for i in range(8):
        network.world.publish(i * 400, b'{"i":%d}' % i)
    network.world.publish(900, b'{"late":1}', delays={1: 3_500})
    network.run_to_final()
    assert len(network.world.paid()) == 1
