"""Work in an interpreter of its own, so that its peak of memory is its own and not that of what came before it.

A forked child would begin with what its parent has in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figures:
    """What one step took."""

    step: str
    peak_mib: int
    seconds: float
    told: dict[str, Any]


def run_apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> Figures:
    """One step, a function of a module; its arguments and what it tells are pickled. What it raises is raised here."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measure, work, arguments).result()


def _measure(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> Figures:
    began = time.monotonic()
    told = work(*arguments)
    seconds = time.monotonic() - began
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return Figures(work.__name__, round(int(peak.split()[1]) / 1024), seconds, told)
