"""State that no source has any more: what it was needed for is left to others."""

from __future__ import annotations

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult
from validator.ports.store import PRUNED
from validator.protocol.errors import TransientError
from validator.protocol.model import Digest, InstanceId
from validator.steps.context import Context

log = get_logger(__name__)

PRUNED_MS = 30_000
"""How often state that no source has is asked for again."""


def leave_to_others(
    context: Context, instance: InstanceId, config_digest: Digest, task: str, key: str, error: TransientError
) -> StepResult:
    """No source has the state that we would judge by: named as what the instance waits for, and left to others.

    The instance is opened, so that its votes, and in the end its certificate, are taken.
    """
    now_ms = context.clock.now_ms()
    if context.store.instances.create_instance(instance, config_digest, now_ms):
        log.warning("state.pruned", instance=str(instance), reason=str(error))
    context.store.instances.save_wait(instance, f"{PRUNED}: {error}")
    context.store.due.postpone(task, key, now_ms + PRUNED_MS)
    return StepResult(Ending.PRUNED, str(error))


def is_pruned(error: TransientError) -> bool:
    """Whether sources answered that they no longer have what was asked for."""
    return error.fields.get("reason") == PRUNED
