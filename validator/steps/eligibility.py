"""Eligibility: whether this validator votes in an instance at all. Who does not still follows, holds and serves."""

from __future__ import annotations

from validator.protocol.model import InstanceId, InstanceKind
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle


def may_vote(context: Context, instance: InstanceId) -> bool:
    """Not as an observer, not while something is in the way (disk, retired database), not before the fresh wait.

    Raises:
        NotYet: the instance is not known well enough to tell.
    """
    if context.identity.voting_key is None or not context.identity.may_vote or context.identity.voting_block():
        return False
    return not is_too_early(context, instance)


def is_too_early(context: Context, instance: InstanceId) -> bool:
    """Whether votes for the instance may have been cast from a database that this one has not seen.

    A database votes in instances whose first window starts at least ``fresh_wait_windows`` after the time of the
    block of its creation (design: agreement, persist then speak). Under a config count that was raised later nothing
    can have been said before.
    """
    origin = context.identity.origin
    if origin is None or context.network.config_count > origin.config_count:
        return False
    if instance.kind is InstanceKind.WINDOW:
        first_ms = instance.number
    else:
        first_ms = require_bundle(context.store, instance.number).first_ms
    epoch = context.network.epoch_at(first_ms)
    if epoch is None:
        return True
    return first_ms < origin.created_s * 1000 + epoch.parameters.fresh_wait_windows * epoch.parameters.window_ms
