"""Admission: which messages may be stored in an instance, as the chain says, by the same blocks for everybody.

Scope, partition and permission of a window's message are those at ``B`` of the window; a late message needs all three
at one block, ``B`` of its own window or ``B`` of the last window of the bundle whose late set it is for. So the answer
is a function of message and instance, never of when, where from, or by which block a validator came to hold it: were
a message judged by the block of the day on which it arrived, members that got it on different days would refuse each
other's sets for ever.

What is kept as a candidate, before its bundle is known, is more than what is admitted in the end: whatever its own
window's block or a recent one would admit. What both refuse and a later block admits is read again from brokers (no
etag is kept of its partition) or comes with the set of a member that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat

from validator.ports.queue import NotYet
from validator.ports.store import PRUNED
from validator.protocol.columns import Page
from validator.protocol.consensus.proposal import Scope
from validator.protocol.consensus.window import Budget
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, Block, ChainState, InstanceId, InstanceKind, Record, StreamPart
from validator.protocol.parameters import ParameterSet
from validator.steps.admission import ContractCheck, Permission
from validator.steps.context import Context
from validator.steps.cut_points import system_stream
from validator.steps.scopes import budgets_at, debts_at, funded_limit, scope_of

Admits = Callable[[StreamPart, bytes, int], bool]
"""(partition, publisher, timestamp_ms) -> whether the message may be stored; raises TransientError where the chain
cannot tell now. For a window whatever the timestamp."""


def permission_at(context: Context, state: ChainState) -> Permission:
    """Who may publish at a block: the registry's word, for the system stream nodes with an http URL; cached."""
    system = system_stream(context.network)
    nodes = {node.address for node in state.brokers}
    known: dict[tuple[str, bytes], bool] = {}

    def permitted(stream_id: str, publisher: bytes) -> bool:
        if stream_id == system:
            return publisher in nodes
        key = (stream_id, publisher)
        if key not in known:
            answer = context.store.chain.load_permission(state.block.hash, stream_id, publisher)
            if answer is None:
                answer = context.chain.fetch_publish_permission(stream_id, publisher, state.block)
                context.store.chain.save_permissions(state.block.hash, {key: answer})
            known[key] = answer
        return known[key]

    return permitted


def contract_check_at(context: Context, block: Block) -> ContractCheck:
    """Whether a contract finds a signature valid at a block (ERC-1271)."""

    def valid(record: Record) -> bool:
        message = record.message
        return context.chain.fetch_is_valid_signature(
            Address(message.publisher_id), record.signed_digest, message.signature, block
        )

    return valid


class AtBlock:
    """Scope, partition, permission and contracts at one block."""

    def __init__(self, context: Context, block: Block, parameters: ParameterSet) -> None:
        self.block = block
        self.state = context.cut_points.state_at(block)
        self.budgets = budgets_at(context, block, parameters)
        self.permitted = permission_at(context, self.state)
        self.contract_check = contract_check_at(context, block)

    def admits(self, part: StreamPart, publisher_id: bytes) -> bool:
        return part in self.budgets and self.permitted(part[0], publisher_id)


class _AtOwnWindows:
    """By each message's own window; read when first asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[int, AtBlock] = {}

    def of(self, timestamp_ms: int) -> AtBlock | None:
        """None where the message lies in no window."""
        network = self._context.network
        window = network.window_at(timestamp_ms)
        epoch = network.epoch_at(window.start_ms) if window is not None else None
        if window is None or epoch is None:
            return None
        if window.start_ms not in self._known:
            block = self._context.cut_points.block_for(window.start_ms, epoch.parameters)
            self._known[window.start_ms] = AtBlock(self._context, block, epoch.parameters)
        return self._known[window.start_ms]


def admission_to(context: Context, instance: InstanceId) -> Admits:
    """Which messages the chain admits to an instance.

    Raises:
        TransientError: the block is not final yet, or its state cannot be read now.
    """
    at_instance = AtBlock(
        context, scope_of(context, instance).block, context.cut_points.instance_config(instance).parameters
    )
    if instance.kind is InstanceKind.WINDOW:
        return lambda part, publisher_id, _timestamp_ms: at_instance.admits(part, publisher_id)
    own_windows = _AtOwnWindows(context)

    def admits(part: StreamPart, publisher_id: bytes, timestamp_ms: int) -> bool:
        if at_instance.admits(part, publisher_id):
            return True
        at_window = own_windows.of(timestamp_ms)
        return at_window is not None and at_window.admits(part, publisher_id)

    return admits


def admits_record(admits: Admits, record: Record) -> bool:
    message = record.message
    return admits(message.stream_part, message.publisher_id, message.timestamp_ms)


def admitted(instance: InstanceId, admits: Admits, page: Page) -> list[bool]:
    """Which messages of a page may be stored. A publisher is asked about once; in a late set at each of its times."""
    times = page.timestamps_ms if instance.kind is InstanceKind.LATE else repeat(page.timestamps_ms[0], len(page))
    cases = list(zip(page.named, times, strict=True))
    known = {case: admits(page.stream_part, page.names[case[0]][0], case[1]) for case in set(cases)}
    return [known[case] for case in cases]


def admission_or_silence(context: Context, instance: InstanceId) -> Admits:
    """The same for what we say ourselves: a message whose block no source has any more is none of our business."""
    admits = admission_to(context, instance)

    def sure(part: StreamPart, publisher_id: bytes, timestamp_ms: int) -> bool:
        try:
            return admits(part, publisher_id, timestamp_ms)
        except TransientError as error:
            if error.fields.get("reason") != PRUNED:
                raise
            return False

    return sure


def late_scope(context: Context, instance: InstanceId, parts: Sequence[StreamPart]) -> Scope:
    """Block and budgets of a late set, for these partitions too, which may have been in scope only before.

    Each holds what the stream's balance at the bundle's ``B``, less its debts, buys; a stream that has none any more
    holds nothing.
    """
    scope = scope_of(context, instance)
    parameters = context.cut_points.instance_config(instance).parameters
    stores = {store.stream_id: store for store in context.cut_points.state_at(scope.block).stores}
    debts = debts_at(context, scope.block)
    budgets = dict(scope.budgets)
    for stream_id, partition in parts:
        if (stream_id, partition) not in budgets:
            store = stores.get(stream_id)
            limit = 0
            if store is not None:
                limit = funded_limit(
                    parameters, store.balance, debts.get(stream_id), max(store.partitions, partition + 1)
                )
            budgets[stream_id, partition] = Budget(limit, message_limit=parameters.message_limit)
    return Scope(scope.block, budgets)


class CandidateCheck:
    """What may become late: admitted by the message's own window, or by a recent block."""

    def __init__(self, context: Context) -> None:
        self.recent = AtBlock(context, *recent_block(context))
        self._own_windows = _AtOwnWindows(context)

    def blocks(self, record: Record) -> list[AtBlock]:
        """Where the message is in scope."""
        try:
            own = self._own_windows.of(record.message.timestamp_ms)
        except TransientError as error:
            if error.fields.get("reason") != PRUNED:
                raise
            own = None
        known = [self.recent] if own is None or own.block == self.recent.block else [own, self.recent]
        return [at for at in known if record.message.stream_part in at.budgets]

    def in_scope(self, record: Record) -> bool:
        return bool(self.blocks(record))

    def admits(self, record: Record) -> bool:
        message = record.message
        return any(at.admits(message.stream_part, message.publisher_id) for at in self.blocks(record))

    def contract_check(self, record: Record) -> bool:
        return any(at.contract_check(record) for at in self.blocks(record))


def recent_block(context: Context) -> tuple[Block, ParameterSet]:
    """``B`` one window ago, which is final in health. Raises NotYet."""
    network, now_ms = context.network, context.clock.now_ms()
    current = network.epoch_at(now_ms) or network.epoch(network.sets[-1].first_epoch)
    if current is None:
        raise NotYet("no epoch has begun")
    parameters = current.parameters
    return context.cut_points.block_for(min(now_ms, current.end_ms - 1) - parameters.window_ms, parameters), parameters
