"""Catch up: take from peers what was decided while we were away, or what we cannot judge ourselves.

A validator that lags by more than a few windows asks one peer after the other for the certificates of its oldest
undecided instances. A certificate is proof by itself: whoever sent it, and whether or not the chain sources still have
the state at ``B``. Values and sets follow as after every decision, checked against the root that was decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import BundleState
from validator.protocol.codec.certificate import verify_certificate
from validator.protocol.codec.outcome import body_digest, decode_outcome
from validator.protocol.errors import MalformedInput, TransientError, ValidatorError
from validator.protocol.model import Address, InstanceId, InstanceKind, VoteQuorum
from validator.steps.context import Context

log = get_logger(__name__)

KEY = "all"
LAG_WINDOWS = 2
LAG_MS = 10_000
"""Behind is what has not been decided this long, and this many windows, after its cut-off."""
OBSERVER_LAG_MS = 2_000
"""Nobody sends an observer what it did not ask for: soon after the cut-off it asks."""
MAX_ASKED = 64
"""Instances asked for at once, the oldest first; the next look goes on from there."""
AGAIN_MS = 5_000
"""Pause after a look that brought nothing."""


def schedule_catch_up(context: Context, now_ms: int) -> bool:
    """Beat's part: have the step queued while something is behind."""
    if context.store.due.pending(Task.ROUND_CATCH_UP) or not behind(context, now_ms, 1):
        return False
    context.store.due.schedule(Task.ROUND_CATCH_UP, KEY, now_ms)
    return True


def behind(context: Context, now_ms: int, limit: int = MAX_ASKED) -> list[InstanceId]:
    """The oldest undecided instances whose decision is overdue."""
    epoch = context.network.epoch_at(now_ms) or context.network.epoch(context.network.sets[-1].first_epoch)
    if epoch is None:
        return []
    parameters = epoch.parameters
    lag_ms = OBSERVER_LAG_MS if context.identity.is_observer else max(LAG_MS, LAG_WINDOWS * parameters.window_ms)
    until_ms = now_ms - parameters.grace_ms - lag_ms
    late: list[InstanceId] = []
    bundle = context.store.bundles.last_bundle()
    while bundle is not None and bundle.state == BundleState.OPEN and len(late) < limit:
        instance = InstanceId(InstanceKind.LATE, bundle.number)
        if bundle.end_ms <= until_ms and context.store.instances.load_certificate(instance) is None:
            late.append(instance)
        bundle = context.store.bundles.load_bundle(bundle.number - 1) if bundle.number else None
    windows = context.store.windows.load_undecided(until_ms, limit)
    return [*reversed(late), *(InstanceId(InstanceKind.WINDOW, start_ms) for start_ms in windows)][:limit]


def catch_up(context: Context) -> StepResult:
    """Ask for certificates until nobody has more. Safe to run twice: a certificate is kept once."""
    now_ms = context.clock.now_ms()
    wanted = dict.fromkeys(behind(context, now_ms))
    if not wanted:
        context.store.due.done(Task.ROUND_CATCH_UP, KEY)
        return StepResult(Ending.LEVEL)
    asked = len(wanted)
    for member in _members(context, next(iter(wanted)), now_ms):
        try:
            certified = context.peers.fetch_certified(member, list(wanted))
        except ValidatorError as error:
            log.debug("catch_up.silent", member=member, reason=str(error))
            continue
        for instance, body, certificate in certified:
            if _accept(context, member, instance, body, certificate):
                wanted.pop(instance, None)
        if not wanted:
            break
    accepted = asked - len(wanted)
    context.store.due.postpone(Task.ROUND_CATCH_UP, KEY, context.clock.now_ms() + AGAIN_MS)
    if accepted:
        log.info("catch_up.accepted", certificates=accepted, oldest=str(next(iter(wanted), "")))
        context.tasks.enqueue(Task.ROUND_CATCH_UP, KEY)
        return StepResult(Ending.CAUGHT_UP, f"{accepted} of {asked} certificates")
    return StepResult(Ending.NOT_YET, f"nobody has a certificate of {asked} overdue instances")


def _members(context: Context, instance: InstanceId, now_ms: int) -> Sequence[Address]:
    """The others, beginning with another one each second."""
    others = context.identity.others(context.cut_points.instance_config(instance).committee)
    first = now_ms // 1000 % max(1, len(others))
    return others[first:] + others[:first]


def _accept(context: Context, member: Address, instance: InstanceId, body: bytes, certificate: VoteQuorum) -> bool:
    """Verify and keep one certificate and the outcome that it names, then wake the instance."""
    try:
        config = context.cut_points.instance_config(instance)
        if decode_outcome(body).instance != instance:
            raise MalformedInput("outcome", "of another instance")
        signing = context.identity.signing
        verify_certificate(certificate, config.digest, instance, config.committee, signing, body_digest(body))
    except (MalformedInput, TransientError) as error:
        log.info("certificate.refused", instance=str(instance), member=member, reason=str(error))
        return False
    instances = context.store.instances
    instances.create_instance(instance, config.digest, context.clock.now_ms())
    instances.save_body(body)
    instances.save_quorum(certificate)
    if instances.mark_queued(instance):
        context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))
    return True
