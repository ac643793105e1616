"""What the lossy network may do to one message at one broker."""

from __future__ import annotations

from random import Random

from validator.devnet.network import Network, Treatment

BATCH_MS = 70


def draws(treatment: Treatment, count: int = 4000, late: bool = False) -> list[list[int]]:
    chance = Random(5)
    return [treatment.draw(chance, BATCH_MS, late) for _ in range(count)]


def test_a_perfect_network_delivers_once_at_once() -> None:
    drawn = draws(Treatment(loss=0, duplicates=0, reordered=0, late=0, late_everywhere=0))
    assert all(len(delays) == 1 and delays[0] <= 20 for delays in drawn)


def test_loss_and_duplicates_come_about_as_often_as_said() -> None:
    drawn = draws(Treatment(loss=0.2, duplicates=0.1, late=0))
    lost = sum(not delays for delays in drawn)
    twice = sum(len(delays) == 2 for delays in drawn)
    assert 600 < lost < 1000
    assert 220 < twice < 420


def test_no_delivery_is_due_later_than_the_longest_delay_less_two_batches() -> None:
    for longest in (0, 100, 140, 16_000):
        treatment = Treatment(late=0.5, reordered=1, reorder_ms=9999, max_delay_ms=longest)
        assert max(delay for delays in draws(treatment) for delay in delays) <= max(0, longest - 2 * BATCH_MS)


def test_a_message_that_is_late_everywhere_is_late_at_each_broker() -> None:
    drawn = draws(Treatment(loss=0, max_delay_ms=16_000), late=True)
    assert min(delay for delays in drawn for delay in delays) >= (16_000 - 2 * BATCH_MS) // 4


def test_brokers_fare_differently_and_one_seed_makes_one_fate() -> None:
    def fate(seed: str) -> list[list[tuple[int, int, bytes]]]:
        network = Network(["http://a", "http://b", "http://c"], Treatment(loss=0.3), seed)
        for number in range(200):
            network.send(b"%d" % number, 1000)
        return [sorted(route.due) for route in network._routes]

    assert fate("x") == fate("x")
    assert fate("x") != fate("y")
    reached = [{line for _, _, line in route} for route in fate("x")]
    assert reached[0] != reached[1] != reached[2]
    assert 120 < len(reached[0]) < 160
