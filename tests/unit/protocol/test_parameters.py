"""network.toml, and windows, epochs and parameter sets as functions of time."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Digest, Window
from validator.protocol.parameters import (
    MAX_REPORT_LINES,
    ConsumerUrls,
    Contracts,
    Network,
    ParameterSet,
    format_network,
    parse_network,
)

GENESIS = 1_700_000_000_000
FIRST = ParameterSet(first_epoch=0, epoch_windows=3, window_ms=1_000)
SECOND = ParameterSet(first_epoch=2, epoch_windows=2, window_ms=500)
CLOSING = ParameterSet(first_epoch=4, epoch_windows=5, window_ms=500, last=True)


def a_network(*sets: ParameterSet, **fields: Any) -> Network:
    values: dict[str, Any] = {
        "name": "devnet",
        "chain_id": 31_337,
        "deployment_block": 3,
        "deployment_parent_hash": Digest(b"\x0a" * 32),
        "contracts": Contracts(*(Address(bytes([i]) * 20) for i in range(1, 7))),
        "genesis_ms": GENESIS,
        "sets": sets or (FIRST, SECOND, CLOSING),
    }
    return Network(**{**values, **fields})


def changed(**fields: Any) -> ParameterSet:
    return replace(FIRST, **fields)


# --- time -----------------------------------------------------------------------------------------


def test_epochs_follow_each_other_without_gaps_through_every_set() -> None:
    network = a_network()
    spans = [(e.start_ms - GENESIS, e.end_ms - GENESIS) for n in range(5) if (e := network.epoch(n)) is not None]
    assert spans == [(0, 3_000), (3_000, 6_000), (6_000, 7_000), (7_000, 8_000), (8_000, 10_500)]
    assert network.epoch(5) is None
    assert network.epoch(-1) is None


@pytest.mark.parametrize(
    ("offset", "epoch", "window"),
    [
        (0, 0, (0, 1_000)),
        (999, 0, (0, 1_000)),
        (5_999, 1, (5_000, 6_000)),
        (6_000, 2, (6_000, 6_500)),
        (10_499, 4, (10_000, 10_500)),
    ],
)
def test_a_moment_names_its_epoch_and_window(offset: int, epoch: int, window: tuple[int, int]) -> None:
    network = a_network()
    found = network.epoch_at(GENESIS + offset)
    assert found is not None
    assert found.number == epoch
    assert network.window_at(GENESIS + offset) == Window(GENESIS + window[0], GENESIS + window[1])


@pytest.mark.parametrize("offset", [-1, 10_500, 10**9])
def test_before_genesis_and_after_the_networks_end_there_is_nothing(offset: int) -> None:
    network = a_network()
    assert network.epoch_at(GENESIS + offset) is None
    assert network.window_at(GENESIS + offset) is None
    assert list(network.windows_from(GENESIS + offset)) == []


def test_a_window_is_found_by_its_exact_start_only() -> None:
    network = a_network()
    assert network.window(GENESIS + 6_500) == Window(GENESIS + 6_500, GENESIS + 7_000)
    assert network.window(GENESIS + 6_501) is None


def test_windows_go_on_over_borders_and_stop_at_the_networks_end() -> None:
    windows = list(a_network().windows_from(GENESIS + 5_000))
    assert [w.start_ms - GENESIS for w in windows] == [5_000, *range(6_000, 10_500, 500)]
    assert a_network().next_window(windows[-1]) is None


def test_a_network_without_a_last_set_goes_on_for_ever() -> None:
    assert a_network(FIRST).epoch(10**6) is not None


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sets",
    [
        (SECOND,),
        (FIRST, CLOSING, SECOND),
        (FIRST, FIRST),
        (FIRST, replace(SECOND, last=True), CLOSING),
    ],
    ids=["no set for epoch 0", "out of order", "one twice", "one behind the last"],
)
def test_sets_that_leave_epochs_without_parameters_are_refused(sets: tuple[ParameterSet, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        a_network(*sets)
    assert error.value.field == "sets"


@pytest.mark.parametrize("field", ["epoch_windows", "window_ms", "bundle_windows", "bundle_bytes", "budget_windows"])
def test_what_others_are_divided_by_or_multiplied_with_is_at_least_one(field: str) -> None:
    with pytest.raises(ConfigError) as error:
        changed(**{field: 0})
    assert error.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grace_ms", -1),
        ("rent", 1 << 128),
        ("horizon_ms", 1 << 63),
        ("grace_ms", "4000"),
        ("grace_ms", True),
        ("last", 1),
        ("finality", 12),
        ("finality", "safe"),
        ("finality", "-1"),
        ("finality", "٣"),
        ("report_mode", "legacy"),
        ("price_default", 0),
        ("price_default", (1 << 40) + 1),
        ("treasury_ppm", 1_000_001),
        ("penalty_ppm", 1_000_001),
        ("margin_ms", 3 * 60 * 1_000 - 1),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        changed(**{field: value})
    assert error.value.field == field


@pytest.mark.parametrize("field", ["chain_id", "deployment_block", "genesis_ms", "config_count"])
def test_a_negative_number_of_the_network_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(ConfigError) as error:
        a_network(**{field: -1})
    assert error.value.field == field


def test_a_genesis_with_a_digit_too_many_is_refused() -> None:
    with pytest.raises(ConfigError, match="after the year 2100") as error:
        a_network(genesis_ms=GENESIS * 10)
    assert error.value.field == "genesis_ms"


# --- network.toml ---------------------------------------------------------------------------------


def test_a_network_survives_its_file() -> None:
    network = a_network(
        FIRST, replace(SECOND, finality="12", price_max=1 << 100), config_count=4, name='a "quoted" näme\\'
    )
    assert parse_network(format_network(network)) == network


def test_where_consumers_may_ask_survives_the_file_and_may_be_left_out() -> None:
    urls = ConsumerUrls(("https://one.example", "https://two.example/key"), ("https://weave.example",))
    network = a_network(FIRST, consumers=urls)
    assert parse_network(format_network(network)) == network
    assert "[consumers]" not in format_network(a_network(FIRST))
    text = format_network(network).replace("rpc_urls = [", "# rpc_urls = [")
    assert parse_network(text).consumers == ConsumerUrls((), ("https://weave.example",))


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ('rpc_urls = "https://one.example"', "rpc_urls"),
        ("gateway_urls = [1]", "gateway_urls"),
        ('urls = ["https://one.example"]', "urls"),
    ],
)
def test_a_wrong_place_for_consumers_is_refused_by_its_field(table: str, field: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_network(f"{format_network(a_network(FIRST))}\n[consumers]\n{table}\n")
    assert error.value.field == field


def test_what_a_file_leaves_out_of_a_set_has_its_default() -> None:
    text = format_network(a_network(FIRST)).split("[[sets]]")[0]
    network = parse_network(text + "[[sets]]\nfirst_epoch = 0\nepoch_windows = 7\n")
    assert network.sets == (ParameterSet(first_epoch=0, epoch_windows=7),)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("chain_id = 31337", "", "chain_id"),
        ("chain_id = 31337", 'chain_id = "31337"', "chain_id"),
        ("config_count = 0", "config_count = 1.5", "config_count"),
        ("config_count = 0", "config_counts = 0", "config_counts"),
        ('token = "0x01', 'token = "0x01zz', "token"),
        ('token = "0x01', 'token = "0x', "token"),
        ("token = ", "tokens = ", "tokens"),
        ("grace_ms = 4000", "grace_ms = 4000.0", "grace_ms"),
        ("grace_ms = 4000", "graze_ms = 4000", "graze_ms"),
        ("first_epoch = 0", "", "first_epoch"),
        ("[[sets]]", "[sets]", "sets"),
        ("[[sets]]", "[[sets", "network"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field_at_fault(old: str, new: str, field: str) -> None:
    text = format_network(a_network(FIRST))
    assert old in text
    with pytest.raises(ConfigError) as error:
        parse_network(text.replace(old, new, 1))
    assert error.value.field == field


def test_every_parameter_is_in_the_file() -> None:
    text = format_network(a_network(FIRST))
    for field in dataclasses.fields(ParameterSet):
        assert f"\n{field.name} = " in text


@pytest.mark.parametrize("limit", [0, 33])
def test_a_committee_is_as_large_as_the_contract_takes_at_most(limit: int) -> None:
    with pytest.raises(ConfigError, match="committee_limit must be 1 to 32"):
        ParameterSet(first_epoch=0, epoch_windows=1, committee_limit=limit)


@pytest.mark.parametrize("lines", [0, MAX_REPORT_LINES + 1, 10_000])
def test_a_file_whose_reports_would_fit_no_transaction_is_refused(lines: int) -> None:
    text = format_network(a_network(ParameterSet(first_epoch=0, epoch_windows=10, report_lines=lines)))
    with pytest.raises(ConfigError, match=f"report_lines must be 1 to {MAX_REPORT_LINES}") as caught:
        parse_network(text)
    assert caught.value.field == "report_lines"


def test_reports_as_large_as_they_may_be_are_read() -> None:
    network = a_network(ParameterSet(first_epoch=0, epoch_windows=10, report_lines=MAX_REPORT_LINES))
    assert parse_network(format_network(network)) == network
