"""Admission: which messages the chain admits to an instance, by the same blocks for everybody.

A message of a window needs scope and permission at the window's block; a late one needs both at one block, that of its
own window or that of the last window of the bundle whose late set it is for.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.verifier.bundles import Archived
from tests.verifier.folder import Run
from tests.verifier.scope import AgreedWindows, budgets_at
from tests.verifier.state import States
from validator.protocol.model import Digest, InstanceId, InstanceKind, Outcome, Record
from validator.protocol.parameters import ParameterSet


class Admission:
    """Answers from the chain's state at agreed blocks."""

    def __init__(self, run: Run, states: States, windows: AgreedWindows) -> None:
        self._run = run
        self._states = states
        self._windows = windows

    def admits_to_window(self, record: Record) -> bool:
        """Whether its own window may hold it; not where that window is unknown."""
        own = self._windows.of(record)
        return own is not None and self._admits(record, own[1].block_hash, own[0].parameters)

    def admits_to_late_set(self, record: Record, bundle: Archived) -> bool:
        return self._admits(record, bundle.block_hash, bundle.parameters) or self.admits_to_window(record)

    def admits(self, record: Record, instance: InstanceId, bundle: Archived) -> bool:
        late = instance.kind is InstanceKind.LATE
        return self.admits_to_late_set(record, bundle) if late else self.admits_to_window(record)

    def blocks_of(self, record: Record, outcome: Outcome) -> Iterator[Digest]:
        """Whose state may speak for a message of an outcome."""
        yield outcome.block_hash
        own = self._windows.of(record)
        if outcome.instance.kind is InstanceKind.LATE and own is not None:
            yield own[1].block_hash

    def _admits(self, record: Record, block_hash: Digest, parameters: ParameterSet) -> bool:
        """In scope, and of somebody who may publish; in the network's own stream these are the brokers."""
        message, state = record.message, self._states.at(block_hash)
        if message.stream_part not in budgets_at(state, {}, parameters, self._run.system_stream):
            return False
        if message.stream_id == self._run.system_stream:
            return message.publisher_id in state.brokers
        return self._states.may_publish(message.stream_id, message.publisher_id, block_hash)
