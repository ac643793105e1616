"""Retention: delete what only served to agree on, upload and settle bundles that are final.

| What | Kept until |
|---|---|
| sets | their bundle and all before it are final, and no late set to come can reach them |
| identities of agreed messages, late candidates | no late set to come can reach them |
| statements, proofs, observations | an hour after their bundle is final; the newest own statement for ever |
| bundle files | an hour after they are final: they can be read from Arweave |
| refused records, chain states | 7 days; states at the start of an epoch for ever |
| files of damaged sets, unfinished files | 7 days |
| certificates, outcomes, evidence, bundles, reports | for ever |

Sets are kept longer than until the bundle is read back: reports are drafted from them, and late sets look at full
entries of windows within their reach.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult
from validator.ports.stored import Settled
from validator.protocol.errors import TransientError
from validator.protocol.parameters import Network
from validator.steps.context import Context

log = get_logger(__name__)

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
MAX_SETS = 200
MAX_ROWS = 20_000
MAX_INSTANCES = 64
MAX_FILES = 100
KEPT_EPOCHS = 200


def sweep(context: Context) -> StepResult:
    """Delete what may go, a bounded part of it. Safe to run at any time, twice at once, and to stop anywhere."""
    now_ms = context.clock.now_ms()
    rows = context.store.retention
    deleted = {"rejections": rows.delete_rejections(now_ms - WEEK_MS, MAX_ROWS)}
    settled = rows.last_settled(now_ms)
    if settled is not None:
        unreachable_ms = settled.end_ms - max(p.late_reach_ms for p in context.network.sets)
        deleted["sets"] = rows.delete_sets(unreachable_ms, MAX_SETS)
        deleted["identities"] = rows.delete_identities(unreachable_ms, MAX_ROWS)
        deleted["notes"] = rows.delete_window_notes(unreachable_ms, MAX_ROWS)
        old_ms = min(now_ms - WEEK_MS, unreachable_ms)
        deleted["states"] = rows.delete_states(old_ms, epoch_cut_points(context.network, now_ms), MAX_ROWS)
    shown = rows.last_settled(now_ms - HOUR_MS)
    if shown is not None:
        deleted["instances"] = rows.prune_instances(shown, MAX_INSTANCES)
        deleted["files"] = delete_bundle_files(context.data_dir / "bundles", shown)
    deleted["files"] = deleted.get("files", 0) + delete_leftovers(context.data_dir / "downloads", now_ms)
    deleted["files"] += rows.delete_set_files(now_ms - WEEK_MS, MAX_FILES)
    if any(deleted.values()):
        rows.compact()
        log.info("retention.swept", **deleted)
        return StepResult(Ending.SWEPT, ", ".join(f"{count} {what}" for what, count in deleted.items() if count))
    return StepResult(Ending.NOTHING_TO_DO)


def epoch_cut_points(network: Network, now_ms: int) -> list[int]:
    """Times (s) of ``B`` of the newest epochs, the first one and the next: committees are read there."""
    current = network.epoch_at(max(now_ms, network.genesis_ms)) or network.epoch(network.sets[-1].first_epoch)
    newest = 0 if current is None else current.number + 1
    numbers = [0, *range(max(1, newest - KEPT_EPOCHS), newest + 1)]
    epochs = [epoch for number in numbers if (epoch := network.epoch(number)) is not None]
    return [epoch.start_ms // 1000 - epoch.parameters.lag_s for epoch in epochs]


def delete_bundle_files(folder: Path, settled: Settled) -> int:
    """Files of bundles up to and including a final one. Raises TransientError: the disk refuses."""
    deleted = 0
    for path in sorted(folder.glob("*.parquet")):
        if path.stem.isdecimal() and int(path.stem) <= settled.number and deleted < MAX_FILES:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise TransientError(f"{path}: cannot delete: {error.strerror}") from error
            deleted += 1
    return deleted


def delete_leftovers(folder: Path, now_ms: int) -> int:
    """Downloads of processes that were killed: older than any download may take."""
    deleted = 0
    for path in sorted(folder.glob("*")):
        try:
            if path.stat().st_mtime * 1000 > now_ms - 24 * HOUR_MS or deleted == MAX_FILES:
                continue
            shutil.rmtree(path)
        except FileNotFoundError:
            continue  # its own process was quicker
        except OSError as error:
            raise TransientError(f"{path}: cannot delete: {error.strerror}") from error
        deleted += 1
    return deleted
