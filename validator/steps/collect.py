"""Collect: pull a window from every live broker, check, deduplicate, save the set; the own observation follows.

Each window is pulled three times: so that the last page ends at the cut-off, again when its bundle's last window is
agreed, and once at window end + horizon. Only the first makes the observation; what later pulls find is a candidate
for a late set and is pushed to the peers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.sources import Pull
from validator.ports.states import WindowState
from validator.ports.stored import StoredWindow
from validator.protocol.codec.outcome import encode_observation, observation_digest, part_order, set_root
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    BrokerShare,
    ChainState,
    InstanceId,
    InstanceKind,
    Observation,
    Window,
)
from validator.protocol.parameters import Epoch, ParameterSet
from validator.quantities import show_count
from validator.steps.context import Context
from validator.steps.cut_points import system_stream
from validator.steps.identity import FOLLOWS, NOBODY
from validator.steps.pruned import is_pruned, leave_to_others
from validator.steps.pulling import count_refusals, pull_late, pulled, require_cut_off, save_etags
from validator.steps.scopes import budgets_at
from validator.steps.window_buffer import WindowBuffer

log = get_logger(__name__)


def collect_window(context: Context, start_ms: int) -> StepResult:
    """Pull one window at its cut-off and observe it. Safe to run twice: a frozen observation never changes.

    Raises:
        NotYet: the cut-off has not passed by clock and chain, or ``B`` is not finalised.
    """
    stored = context.store.windows.load_window(start_ms)
    if stored is None:
        return StepResult(Ending.UNKNOWN_WINDOW)
    epoch = context.network.epoch(stored.epoch)
    assert epoch is not None
    if stored.observation is not None:
        _open_round(context, stored.window, epoch)
        return StepResult(Ending.ALREADY_DONE)
    if context.identity.is_observer:
        return _follow(context, stored, epoch)
    if stored.state != WindowState.OPEN:
        return _decided_without_us(context, stored.window, epoch)
    require_cut_off(context, stored.window, epoch)
    try:
        return _observe_window(context, stored.window, epoch)
    except TransientError as error:
        if not is_pruned(error):
            raise
        instance = InstanceId(InstanceKind.WINDOW, start_ms)
        digest = context.cut_points.epoch_config(epoch.number).digest
        return leave_to_others(context, instance, digest, Task.WINDOW_COLLECT, str(start_ms), error)


def collect_at_horizon(context: Context, start_ms: int) -> StepResult:
    """Pull one window for the last time. Safe to run twice: an unchanged window costs a 304."""
    stored = context.store.windows.load_window(start_ms)
    if stored is None:
        return StepResult(Ending.UNKNOWN_WINDOW)
    observes = context.identity.is_observer
    result = StepResult(Ending.FOLLOWED) if observes else pull_late(context, stored)
    context.store.due.done(Task.WINDOW_COLLECT_HORIZON, str(start_ms))
    return result


def _follow(context: Context, stored: StoredWindow, epoch: Epoch) -> StepResult:
    """An observer asks no broker, which would ask to be paid: what an agreed window holds the members know."""
    key = str(stored.window.start_ms)
    if stored.state == WindowState.OPEN:
        require_cut_off(context, stored.window, epoch)
        instance = InstanceId(InstanceKind.WINDOW, stored.window.start_ms)
        digest = context.cut_points.epoch_config(epoch.number).digest
        if context.store.instances.create_instance(instance, digest, context.clock.now_ms()):
            context.store.instances.save_wait(instance, FOLLOWS)
    context.store.due.done(Task.WINDOW_COLLECT, key)
    return StepResult(Ending.FOLLOWED)


def _observe_window(context: Context, window: Window, epoch: Epoch) -> StepResult:
    with pulled(context, window, epoch) as (state, pulls, buffer):
        count_refusals(buffer.refusals())
        observation = _observe(context, window, state, epoch.parameters, pulls, buffer)
        if _freeze(context, window, observation, buffer):
            save_etags(context, window.start_ms, pulls, buffer)
        _open_round(context, window, epoch)
        return StepResult(Ending.COLLECTED, show_count(observation.count, "message"))


def _decided_without_us(context: Context, window: Window, epoch: Epoch) -> StepResult:
    """Its certificate came before our first pull, whose observation would count no more. Later pulls find late ones."""
    key = str(window.start_ms)
    context.store.due.schedule(Task.WINDOW_COLLECT_HORIZON, key, window.end_ms + epoch.parameters.horizon_ms)
    context.store.due.done(Task.WINDOW_COLLECT, key)
    return StepResult(Ending.DECIDED_BEFORE)


def _observe(
    context: Context,
    window: Window,
    state: ChainState,
    parameters: ParameterSet,
    pulls: Sequence[Pull],
    buffer: WindowBuffer,
) -> Observation:
    """Save the set; what it shows, with what brokers served and missed."""
    entries = context.store.sets.save_ordered(buffer.merge())
    answered = {p.stream_part for p in pulls if p.complete}
    parts = budgets_at(context, state.block, parameters)
    return Observation(
        instance=InstanceId(InstanceKind.WINDOW, window.start_ms),
        set_root=set_root(entries),
        count=sum(e.count for e in entries),
        signed_bytes=sum(e.signed_bytes for e in entries),
        incomplete=tuple(sorted((part for part in parts if part not in answered), key=part_order)),
        shares=buffer.shares(pulls, [node.address for node in state.brokers], free=system_stream(context.network)),
        erc1271=tuple(sorted(buffer.erc1271)[: parameters.erc1271_limit]),
        observer=context.identity.address or NOBODY,
    )


def _freeze(context: Context, window: Window, observation: Observation, buffer: WindowBuffer) -> bool:
    """Save the observation: from here on this is what we saw, whatever is learned later.

    False if another worker has frozen what it saw first.
    """
    context.store.windows.save_collected(
        window.start_ms, encode_observation(observation), buffer.rejections, buffer.serve_counts()
    )
    count_shares(observation.shares)
    log.info(
        "window.collected",
        window=window.start_ms,
        messages=observation.count,
        rejected=buffer.refused_records,
        incomplete=len(observation.incomplete),
    )
    stored = context.store.windows.load_window(window.start_ms)
    return stored is not None and stored.observation == observation_digest(observation)


def count_shares(shares: Sequence[BrokerShare]) -> None:
    """What each broker served and missed of a window, into the metrics."""
    from validator import metrics  # made where they are counted: the folder is known by then

    for share in shares:
        metrics.served_bytes.labels(f"0x{share.broker.hex()}").inc(share.served)
        metrics.missed_bytes.labels(f"0x{share.broker.hex()}").inc(share.missed)


def _open_round(context: Context, window: Window, epoch: Epoch) -> None:
    """What follows from a frozen observation; done again if a crash came between."""
    instance = InstanceId(InstanceKind.WINDOW, window.start_ms)
    now_ms = context.clock.now_ms()
    digest = context.cut_points.epoch_config(epoch.number).digest
    opened = context.store.instances.create_instance(instance, digest, now_ms)
    stored = context.store.windows.load_window(window.start_ms)
    if opened or (stored is not None and stored.state == WindowState.COLLECTED):
        context.store.due.schedule(
            Task.WINDOW_COLLECT_HORIZON, str(window.start_ms), window.end_ms + epoch.parameters.horizon_ms
        )
        context.store.due.schedule(Task.ROUND_ADVANCE, str(instance), now_ms)
        context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))
    context.store.due.done(Task.WINDOW_COLLECT, str(window.start_ms))
