"""Sending an upload's chunks, run by run: what gateways have taken is saved, and the next run sends what is missing.

A run that is killed has saved nothing of its own, so its chunks are sent again; that is harmless. When enough gateways
have everything nothing is remembered: if data is missing then, it was lost, and all of it is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from validator.ports.storage import GatewaySeed, PreparedUpload, is_seeded
from validator.steps.context import Context


def seed_some(context: Context, prepared: PreparedUpload, path: Path) -> tuple[GatewaySeed, ...]:
    """One run; what each gateway has taken by now. Raises Disagreement: another file than was prepared."""
    rows = context.store.bundles
    seeds = context.storage.seed(prepared, path, rows.load_seeds(prepared.storage_id))
    if is_seeded(seeds):
        rows.forget_seeds(prepared.storage_id)
    else:
        rows.save_seeds(prepared.storage_id, {seed.host: seed.taken for seed in seeds if seed.taken})
    return seeds


def describe_missing(seeds: Sequence[GatewaySeed]) -> str:
    """Who has not taken all, what and why."""
    return "; ".join(str(seed) for seed in seeds if not seed.is_complete)
