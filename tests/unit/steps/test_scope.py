"""Which partitions are in scope at a block, and what each may hold."""

from __future__ import annotations

from tests.fakes.world import CONTRACTS, GENESIS_MS, some_network, some_parameters
from validator.protocol.consensus.window import Budget
from validator.protocol.model import MIB, Block, ChainState, Digest, Store
from validator.protocol.report import Debt
from validator.steps.cut_points import system_stream
from validator.steps.scopes import budgets_of

NETWORK = some_network()
PARAMETERS = some_parameters(scope_floor=100, price_max=1 << 10, price_default=1 << 9, budget_windows=8)
SYSTEM = (system_stream(NETWORK), 0)


def parts_of(*stores: Store, owed: int = 0) -> dict[tuple[str, int], Budget]:
    state = ChainState(Block(1, Digest(bytes(32)), GENESIS_MS // 1000), (), stores, SYSTEM[0], {})
    debts = {store.stream_id: Debt(owed, 0, 0) for store in stores if owed}
    return dict(budgets_of(NETWORK, state, debts, PARAMETERS))


def test_the_system_stream_is_the_node_managers_always_in_scope_and_limited_per_publisher() -> None:
    assert SYSTEM[0] == f"0x{CONTRACTS.node_manager.hex()}/system"
    limit = Budget(PARAMETERS.partition_limit, per_publisher=True, message_limit=PARAMETERS.message_limit)
    assert parts_of() == {SYSTEM: limit}


def test_nobody_buys_the_system_stream_another_budget() -> None:
    assert parts_of(Store(SYSTEM[0], 10**20, 5)) == parts_of()


def test_a_stream_is_in_scope_from_the_floor_per_partition_on() -> None:
    assert set(parts_of(Store("a", 299, 3), Store("b", 300, 3))) == {SYSTEM, ("b", 0), ("b", 1), ("b", 2)}


def test_a_floor_of_zero_still_asks_for_a_balance() -> None:
    state = ChainState(Block(1, Digest(bytes(32)), 0), (), (Store("a", 0, 1), Store("b", 1, 1)), SYSTEM[0], {})
    assert set(budgets_of(NETWORK, state, {}, some_parameters(scope_floor=0))) == {SYSTEM, ("b", 0)}


def test_a_partition_may_hold_what_its_part_of_the_balance_pays_for_in_all_open_windows() -> None:
    balance = 123_457
    budget = parts_of(Store("a", balance, 3))[("a", 2)]
    assert budget == Budget(balance * MIB // ((1 << 10) * 3 * 8), message_limit=PARAMETERS.message_limit)


def test_no_balance_buys_more_than_the_partition_limit() -> None:
    assert parts_of(Store("a", 10**30, 1))[("a", 0)].limit == PARAMETERS.partition_limit


def test_what_a_stream_owes_already_buys_nothing_again() -> None:
    balance, owed = 123_457, 23_457
    budget = parts_of(Store("a", balance, 1), owed=owed)[("a", 0)]
    assert budget.limit == 100_000 * MIB // ((1 << 10) * 8)
    assert parts_of(Store("a", balance, 1), owed=balance + 1)[("a", 0)].limit == 0


def test_a_stream_that_the_registry_has_deleted_is_out_of_scope() -> None:
    assert set(parts_of(Store("a", 10**9, 0))) == {SYSTEM}
