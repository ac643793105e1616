"""Windows and epochs of networks drawn at random: time is tiled, every moment has one window, files keep everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from validator.protocol.codec.config import decode_config, encode_config
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import Config, Contracts, Network, ParameterSet, format_network, parse_network

GENESIS = 1_700_000_000_000
CONTRACTS = Contracts(*(Address(bytes([i]) * 20) for i in range(1, 7)))


@st.composite
def some_networks(draw: st.DrawFn) -> Network:
    firsts = [0, *sorted(draw(st.sets(st.integers(1, 6), max_size=3)))]
    sets = [
        ParameterSet(
            first_epoch=first,
            epoch_windows=draw(st.integers(1, 5)),
            window_ms=draw(st.integers(1, 9)),
            rent=draw(st.integers(0, (1 << 128) - 1)),
            finality=draw(st.sampled_from(("finalized", "12"))),
            last=draw(st.booleans()) if index == len(firsts) - 1 else False,
        )
        for index, first in enumerate(firsts)
    ]
    name = draw(st.text(max_size=20))
    return Network(name, 31_337, 3, Digest(b"\x0a" * 32), CONTRACTS, GENESIS, tuple(sets), draw(st.integers(0, 9)))


@given(some_networks())
def test_windows_tile_time_and_lie_in_their_epochs(network: Network) -> None:
    expected = GENESIS
    for number in range(10):
        epoch = network.epoch(number)
        if epoch is None:
            assert network.window_at(expected) is None
            return
        assert epoch.start_ms == expected
        for start_ms in range(epoch.start_ms, epoch.end_ms, epoch.parameters.window_ms):
            window = network.window(start_ms)
            assert window is not None
            for moment in (window.start_ms, window.end_ms - 1):
                assert network.window_at(moment) == window
                assert network.epoch_at(moment) == epoch
        expected = epoch.end_ms


@given(some_networks())
def test_a_network_survives_its_file(network: Network) -> None:
    assert parse_network(format_network(network)) == network


@given(network=some_networks(), members=st.sets(st.binary(min_size=20, max_size=20), max_size=5))
def test_a_config_survives_its_preimage(network: Network, members: set[bytes]) -> None:
    committee = tuple(sorted(Address(m) for m in members))
    config = Config(31_337, Digest(b"\x0a" * 32), CONTRACTS, network.sets[-1], 7, network.config_count, committee)
    assert decode_config(encode_config(config)) == config
