"""What is in scope at a block, and how much each partition may hold: a function of chain state alone.

A stream's balance buys bytes as far as it is free of debts. Which debts count is the chain's word too: those in the
ledger of the last report that it had accepted at the block, whatever a validator has drafted since.
"""

from __future__ import annotations

from collections.abc import Mapping

from validator.protocol.consensus.proposal import Scope
from validator.protocol.consensus.window import Budget, partition_budget
from validator.protocol.errors import ConfigError
from validator.protocol.model import Block, ChainState, InstanceId, InstanceKind, StreamPart
from validator.protocol.parameters import Network, ParameterSet
from validator.protocol.report import Debt
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle, system_stream
from validator.steps.drafts import ledger_after

Debts = Mapping[str, Debt]
"""By stream."""


def debts_at(context: Context, block: Block) -> Debts:
    """What streams owe by the last report accepted at a block.

    Raises:
        NotYet: its bundle is not here yet.
    """
    known = context.debts.get(block.hash)
    if known is None:
        last = context.chain.fetch_last_report(block)
        known = context.debts.put(block.hash, ledger_after(context, -1 if last is None else last.number).owed or {})
    return known


def budgets_at(context: Context, block: Block, parameters: ParameterSet) -> Mapping[StreamPart, Budget]:
    """``budgets_of`` the state at a block. Raises TransientError while the chain or the ledger cannot be read."""
    state = context.cut_points.state_at(block)
    return budgets_of(context.network, state, debts_at(context, block), parameters)


def scope_of(context: Context, instance: InstanceId) -> Scope:
    """Block and budgets of an instance: ``B``(window start), for a late set that of the bundle's last window."""
    if instance.kind is InstanceKind.WINDOW:
        start_ms = instance.number
    else:
        start_ms = require_bundle(context.store, instance.number).last_ms
    epoch = context.network.epoch_at(start_ms)
    if epoch is None:
        raise ConfigError(f"{instance} lies in no epoch", field="instance")
    block = context.cut_points.block_for(start_ms, epoch.parameters)
    return Scope(block, budgets_at(context, block, epoch.parameters))


def budgets_of(
    network: Network, state: ChainState, debts: Debts, parameters: ParameterSet
) -> Mapping[StreamPart, Budget]:
    """The partitions in scope at a block, each with its budget. A stream that the registry has deleted has none."""
    budgets: dict[StreamPart, Budget] = {}
    system = system_stream(network)
    for store in state.stores:
        if store.stream_id == system or not store.partitions:
            continue
        if store.balance < max(1, parameters.scope_floor * store.partitions):
            continue
        limit = funded_limit(parameters, store.balance, debts.get(store.stream_id), store.partitions)
        for partition in range(store.partitions):
            budgets[(store.stream_id, partition)] = Budget(limit, message_limit=parameters.message_limit)
    budgets[(system, 0)] = Budget(
        parameters.partition_limit, per_publisher=True, message_limit=parameters.message_limit
    )
    return budgets


def funded_limit(parameters: ParameterSet, balance: int, debt: Debt | None, partitions: int) -> int:
    """What one of a stream's partitions may hold, by what its balance is more than what it owes."""
    return partition_budget(parameters, max(0, balance - (debt.amount if debt is not None else 0)), partitions)
