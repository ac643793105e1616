"""Late sets: one instance per bundle, for what its windows missed.

Begun when the bundle's windows and the previous late set are held here, and the pulls that were due by then have
ended. What is observed are the candidates: valid, in no agreed set, inside the bundle's reach.
"""

from __future__ import annotations

from collections.abc import Sequence

from validator.log import get_logger
from validator.ports.queue import Ending, NotYet, StepResult, Task
from validator.protocol.codec.outcome import encode_observation, set_root
from validator.protocol.consensus.window import make_entries
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Record,
    SignatureType,
)
from validator.steps.agreed import require_outcome
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.identity import FOLLOWS, NOBODY
from validator.steps.late_candidates import late_candidates
from validator.steps.pruned import is_pruned, leave_to_others
from validator.steps.pulling import pull_late

log = get_logger(__name__)


def collect_late(context: Context, number: int) -> StepResult:
    """Freeze the late observation of a bundle and open its instance.

    Raises:
        NotYet: an earlier late set is not held, or a pull is under way.
    """
    bundle = require_bundle(context.store, number)
    config = context.cut_points.epoch_config(bundle.epoch)
    instance = InstanceId(InstanceKind.LATE, number)
    if context.store.windows.load_late_observation(number) is None:
        if context.store.instances.load_certificate(instance) is not None:
            context.store.due.done(Task.LATE_COLLECT, str(number))
            return StepResult(Ending.DECIDED_BEFORE)
        if context.identity.is_observer:
            if context.store.instances.create_instance(instance, config.digest, context.clock.now_ms()):
                context.store.instances.save_wait(instance, FOLLOWS)
            context.store.due.done(Task.LATE_COLLECT, str(number))
            return StepResult(Ending.FOLLOWED)
        _require_predecessor(context, number)
        for stored in context.store.windows.load_windows(bundle.first_ms, bundle.end_ms):
            pull_late(context, stored)
        _require_horizon_pulls(context)
        try:
            _freeze(context, number)
        except TransientError as error:
            if not is_pruned(error):
                raise
            return leave_to_others(context, instance, config.digest, Task.LATE_COLLECT, str(number), error)
    context.store.instances.create_instance(instance, config.digest, context.clock.now_ms())
    context.store.due.schedule(Task.ROUND_ADVANCE, str(instance), context.clock.now_ms())
    context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))
    context.store.due.done(Task.LATE_COLLECT, str(number))
    return StepResult(Ending.COLLECTED)


def _require_predecessor(context: Context, number: int) -> None:
    if number == 0:
        return
    outcome = require_outcome(context, InstanceId(InstanceKind.LATE, number - 1))
    if not context.store.sets.has_set(set_root(outcome.entries)):
        raise NotYet(f"the late set of bundle {number - 1} is not held")


def _require_horizon_pulls(context: Context) -> None:
    """Pulls at the horizon that are due by now have ended."""
    now_ms = context.clock.now_ms()
    for key in context.store.due.pending(Task.WINDOW_COLLECT_HORIZON):
        window = context.network.window(int(key))
        epoch = context.network.epoch_at(int(key))
        if window is not None and epoch is not None and window.end_ms + epoch.parameters.horizon_ms <= now_ms:
            raise NotYet(f"the pull at the horizon of window {key} is under way")


def contract_signatures(records: Sequence[Record]) -> tuple[Digest, ...]:
    """Digests of messages signed by contracts; a candidate was found valid here before it was kept."""
    return tuple(sorted(r.signed_digest for r in records if r.message.signature_type is SignatureType.ERC_1271))


def _freeze(context: Context, number: int) -> None:
    bundle = require_bundle(context.store, number)
    records = late_candidates(context, number)
    entries = make_entries(records)
    root = set_root(entries)
    observation = Observation(
        instance=InstanceId(InstanceKind.LATE, number),
        set_root=root,
        count=len(records),
        signed_bytes=sum(r.signed_bytes for r in records),
        erc1271=contract_signatures(records)[: context.cut_points.epoch_config(bundle.epoch).parameters.erc1271_limit],
        observer=context.identity.address or NOBODY,
    )
    context.store.sets.save_set(root, records)
    context.store.windows.save_late_observation(number, encode_observation(observation))
    log.info("late.collected", bundle=number, messages=len(records))
