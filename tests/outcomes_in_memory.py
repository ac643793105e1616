"""Outcomes of unions that are in memory whole, as tests have them: the product builds them page by page (``Draft``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from validator.protocol.columns import RecordSet, Row
from validator.protocol.consensus.proposal import Draft, Scope
from validator.protocol.consensus.window import Union, make_entries
from validator.protocol.model import Digest, InstanceId, Observation, Outcome, Record
from validator.protocol.parameters import ParameterSet


def build_outcome(
    instance: InstanceId,
    scope: Scope,
    union: Union,
    used: Mapping[Digest, Observation],
    n: int,
    parameters: ParameterSet,
    full_ends: Callable[[Row], bool] | None = None,
) -> tuple[Outcome, tuple[Record, ...]]:
    """The outcome of a union that is in memory, and the records behind its root in canonical order."""
    draft = Draft(instance, scope, used, n, parameters, full_ends)
    messages = RecordSet(union.records)
    varied = {(stream, partition) for stream, partition, _, _ in union.varied}
    parts = (
        (part, ((page, part in varied) for page in messages.pages(part)))
        for part in (entry.stream_part for entry in messages.entries)
    )
    by_leaf = {record.leaf: record for record in union.records}
    kept = tuple(by_leaf[leaf] for page in draft.pages(parts) for leaf in page.list_leaves())
    return draft.outcome(make_entries(kept)), kept
