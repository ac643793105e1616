"""Programs of ours that do one piece of work in a process of their own, and answer with one line of JSON.

What a large library takes, what hostile bytes make of it, and what is left of both in memory ends with the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

MAX_STDERR_BYTES = 2_000
OWN = "LOGSTORE_"
"""Names of our settings, secrets among them: no child needs one."""


class ChildFailed(Exception):
    """It came to no answer: killed, crashed, out of time or memory, or it says so."""


def run_program(
    module: str,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run ``python -m module`` with ``given`` on its standard input; what it answers with status 0 or 1.

    ``environment``: what it finds there beside the place of our modules; without it, nothing else.

    Raises:
        ChildFailed: why there is no answer, in words that follow the child's name.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        try:
            status = subprocess.run(
                [sys.executable, "-P", "-m", module, *arguments],
                input=given,
                stdout=output,
                stderr=complaint,
                env={**(environment or {}), **_environment()},
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"did not end within {timeout_s} s") from error
        output.seek(0)
        complaint.seek(0)
        answer = output.read()
        said = complaint.read(MAX_STDERR_BYTES).decode(errors="replace")
    if status < 0:
        raise ChildFailed(f"ended by signal {-status}")
    if status not in (0, 1):
        raise ChildFailed(f"ended with status {status}: {said.strip()[-300:]}")
    try:
        return json.loads(answer)
    except ValueError as error:
        raise ChildFailed("was cut short") from error


def foreign_environment() -> dict[str, str]:
    """Of this process's environment what is not ours: proxies, and how an object store is reached."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN)}


def _environment() -> dict[str, str]:
    """Where modules lie; one malloc arena, since each maps 64 MiB ahead."""
    paths = os.pathsep.join(p for p in sys.path if p)
    return {"PYTHONPATH": paths, "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
