"""Work in a process of its own, so that its peak of memory is its own and not that of what came before it."""

from __future__ import annotations

import os
import pickle
import resource
import sys
import time
import traceback
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


def run_apart(step: str, work: Callable[[], dict[str, Any]]) -> Figures:
    """One step in a child of its own; what it tells comes back through a pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            began = time.monotonic()
            told = work()
            seconds = time.monotonic() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with os.fdopen(writing, "wb") as file:
                pickle.dump(Figures(step, round(peak / 1024), seconds, told), file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    if not data:
        raise SystemExit(f"{step} failed")
    figures: Figures = pickle.loads(data)
    return figures


def run_fresh(work: Callable[..., dict[str, Any]], *arguments: Any) -> Figures:
    """The same in a new interpreter, which has nothing of this one's memory. ``work`` is a function of a module."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measure, work, arguments).result()


def _measure(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> Figures:
    began = time.monotonic()
    told = work(*arguments)
    seconds = time.monotonic() - began
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return Figures(work.__name__, round(int(peak.split()[1]) / 1024), seconds, told)
