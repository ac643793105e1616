"""Options, bounds, parameter sets and times of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from validator.devnet.plan import (
    GRACE_MS,
    NetworkChoice,
    Options,
    bundle_count,
    check_options,
    compute_launch_ms,
    make_key,
    make_node_id,
    parameter_sets,
    plan_kill,
)
from validator.devnet.preparation import make_streams
from validator.devnet.signers import Scheme
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import Config, Contracts, Network, format_network, parse_network

OWNER = SigningKey(b"\x09" * 32)
CONTRACTS = Contracts(*(Address(bytes([n]) * 20) for n in range(1, 7)))


def a_network(options: Options) -> Network:
    return Network("devnet", 31337, 1, Digest(b"\x07" * 32), CONTRACTS, 1_700_000_000_000, parameter_sets(options))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"brokers": 0}, "--brokers"),
        ({"validators": 0}, "--validators"),
        ({"consumers": -1}, "--consumers"),
        ({"windows": 0}, "--windows"),
        ({"window_seconds": 1.9}, "--window-seconds"),
        ({"window_seconds": float("nan")}, "--window-seconds"),
        ({"loss": 1.0}, "--loss"),
        ({"loss": -0.1}, "--loss"),
        ({"loss": float("nan")}, "--loss"),
        ({"rate": 0.0}, "--rate"),
        ({"seed": -1}, "--seed"),
        ({"flower": "two"}, "--flower"),
        ({"lying_broker": "much"}, "--lying-broker"),
        ({"lying_broker": "omits", "brokers": 2}, "--lying-broker"),
        ({"kill_one": True, "validators": 3}, "--kill-one"),
        ({"kill_one": True, "windows": 3}, "--kill-one"),
        ({"kill_one": True, "windows": 11, "window_seconds": 2.0}, "--kill-one"),
        ({"keep": True, "kill_one": True}, "--keep"),
        ({"keep": True, "json_file": Path("summary.json")}, "--keep"),
        ({"tour": True}, "--tour"),
    ],
)
def test_what_cannot_work_is_refused_by_its_option(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: ") as caught:
        check_options(replace(Options(), **changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(validators=1, windows=1),
        Options(validators=2, consumers=0, loss=0.0),
        Options(windows=6, kill_one=True),
        Options(windows=12, window_seconds=2.0, kill_one=True),
        Options(keep=True, tour=True),
    ],
)
def test_what_works_is_taken(options: Options) -> None:
    check_options(options)


def test_epochs_are_the_windows_and_then_the_closing_bundle() -> None:
    network = a_network(Options(windows=6, window_seconds=3.0))
    starts = [window.start_ms - network.genesis_ms for window in network.windows_from(network.genesis_ms)]
    assert starts == [3_000 * n for n in range(11)]
    last = network.epoch(1)
    assert last is not None
    assert (last.last, last.start_ms, last.parameters.bundle_windows) == (True, network.genesis_ms + 18_000, 5)
    assert network.epoch(2) is None


def test_a_network_that_goes_on_has_one_epoch_after_the_other_and_traffic_in_all() -> None:
    options = Options(windows=3, window_seconds=2.0, keep=True)
    network = a_network(options)
    for number in (0, 1, 2, 100_000):
        epoch = network.epoch(number)
        assert epoch is not None
        assert (epoch.start_ms, epoch.last) == (network.genesis_ms + number * options.epoch_ms, False)
    assert options.epoch_ms == 6_000
    assert options.traffic_ms > 100_000 * options.epoch_ms


@pytest.mark.parametrize(("windows", "bundles"), [(1, 2), (2, 2), (4, 2), (5, 3), (8, 3), (9, 4)])
def test_a_bundle_is_four_windows_and_one_closes(windows: int, bundles: int) -> None:
    assert bundle_count(Options(windows=windows)) == bundles


@pytest.mark.parametrize("seconds", [2.0, 4.0, 60.0])
def test_the_last_pull_of_every_window_lies_before_the_closing_late_set(seconds: float) -> None:
    options = Options(windows=3, window_seconds=seconds)
    first, closing = parameter_sets(options)
    end_of_epoch_0 = options.windows * options.window_ms
    end_of_closing = end_of_epoch_0 + closing.epoch_windows * options.window_ms
    assert first.horizon_ms == closing.horizon_ms == 4 * options.window_ms + 2_000
    assert end_of_epoch_0 + first.horizon_ms <= end_of_closing + GRACE_MS


def test_the_network_file_says_what_the_sets_say() -> None:
    network = a_network(Options(windows=3))
    assert parse_network(format_network(network)) == network


def test_both_epochs_have_digests_of_their_own() -> None:
    network = a_network(Options())
    digests = {
        config_digest(Config(31337, network.deployment_parent_hash, CONTRACTS, parameters, epoch, 0, ()))
        for epoch, parameters in enumerate(network.sets)
    }
    assert len(digests) == 2


def test_no_entry_is_ever_full() -> None:
    from validator.devnet.preparation import STORE_BALANCE, STREAMS
    from validator.protocol.consensus.window import partition_budget

    most = Options(rate=2000, window_seconds=600)
    needed = 2000 * 4 * 1600  # a four-second window in which every message goes to one partition
    for _, partitions, _ in STREAMS:
        for parameters in parameter_sets(most):
            assert partition_budget(parameters, STORE_BALANCE, partitions) > needed


def test_keys_follow_from_seed_name_and_purpose() -> None:
    addresses = {
        make_key(seed, name, purpose).address for seed in (1, 2) for name in "ab" for purpose in ("voting", "gas")
    }
    assert len(addresses) == 8
    assert make_key(1, "a", "gas").address == make_key(1, "a", "gas").address


def test_more_validators_get_more_time_to_start() -> None:
    four = compute_launch_ms(4, 3, 1, 2)
    assert 15_000 <= four <= 25_000
    assert compute_launch_ms(1, 1, 0, 2) < four < compute_launch_ms(7, 3, 1, 2) <= 60_000


@pytest.mark.parametrize("seed", range(12))
def test_the_killed_one_misses_two_cut_offs_before_any_bundle_is_sealed(seed: int) -> None:
    options = Options(windows=8, seed=seed, kill_one=True)
    genesis_ms = 1_700_000_000_000
    plan = plan_kill(options, genesis_ms)
    assert 1 <= plan.validator < options.validators
    assert genesis_ms < plan.kill_ms < genesis_ms + 4 * options.window_ms
    cut_offs = [genesis_ms + (n + 1) * options.window_ms + GRACE_MS for n in range(8)]
    assert len([c for c in cut_offs if plan.kill_ms < c < plan.restart_ms]) >= 2


def test_the_publishers_of_a_run_sign_in_every_way_and_each_is_somebody_else() -> None:
    streams = make_streams(Options(), OWNER)
    publishers = [publisher for stream in streams for publisher in stream.publishers]
    assert {publisher.scheme for publisher in publishers} == set(Scheme)
    assert len({publisher.user_id for publisher in publishers}) == len(publishers)
    wallets = {publisher.scheme: publisher.wallet for publisher in publishers if publisher.wallet is not None}
    assert set(wallets) == {Scheme.ERC_1271}


def test_a_network_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--network: must be auto, real or simulated"):
        check_options(Options(network="carrier pigeons"))
    for network in NetworkChoice:
        check_options(Options(network=network))


def test_nodes_have_places_of_their_own_that_the_seed_decides() -> None:
    places = {make_node_id(seed, number) for seed in (1, 2) for number in range(8)}
    assert len(places) == 16
    assert all(len(bytes.fromhex(place)) == 20 for place in places)
    assert make_node_id(1, 0) == make_node_id(1, 0)
