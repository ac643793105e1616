"""One file verified by several processes: each recounts a share of its rows (``bundle_shares``).

They are forked behind the checks of footer, manifest and certificates, so they cost some milliseconds, have the limits
of the child that they come from, and end with it. All they say is that their share holds. Where one does not, whatever
the reason or without any, all rows are read again by one process: a refusal is the same, however many read.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from validator.protocol.codec.bundle import VerifiedBundle
from validator.protocol.codec.bundle_file import verify_front, verify_share
from validator.protocol.codec.bundle_shares import Share, plan_shares
from validator.protocol.codec.manifest import manifest_root
from validator.protocol.codec.parquet_footer import Footer
from validator.protocol.model import Manifest

SHARE_ROWS = 1 << 14
"""Fewer are read before a process for them would pay."""
_PR_SET_PDEATHSIG = 1


def verify_shared(path: Path, processes: int, least_rows: int = SHARE_ROWS) -> VerifiedBundle:
    """As ``verify_bundle_file``, by at most so many processes, each of which reads ``least_rows`` or more."""
    with path.open("rb", buffering=0) as file:
        footer, manifest = verify_front(file)
        shares = plan_shares(manifest, max(1, min(processes, footer.rows // least_rows)))
        if len(shares) < 2 or not all_end_well([partial(_verify, file, footer, manifest, share) for share in shares]):
            verify_share(file, footer, manifest)
    return VerifiedBundle(manifest, manifest_root(manifest), footer.rows)


def _verify(file: Any, footer: Footer, manifest: Manifest, share: Share) -> None:
    with open(f"/proc/self/fd/{file.fileno()}", "rb", buffering=0) as own:  # the same file, at a place of its own
        verify_share(own, footer, manifest, share)


def all_end_well(works: Sequence[Callable[[], object]]) -> bool:
    """Whether each piece of work returns, in a process of its own. At the first that does not, all are ended."""
    gc.freeze()  # what is here already stays in common
    parent = os.getpid()
    running: set[int] = set()
    try:
        for work in works:
            child = os.fork()
            if not child:
                _run(work, parent)
            running.add(child)
        while running:
            child, status = os.wait()
            running.discard(child)
            if status:
                return False
        return True
    except OSError:  # no process to be had
        return False
    finally:
        for child in running:
            os.kill(child, signal.SIGKILL)
        for child in running:
            os.waitpid(child, 0)


def _run(work: Callable[[], object], parent: int) -> NoReturn:
    """In the child: its status is all it says."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            work()
            status = 0
    finally:
        os._exit(status)
