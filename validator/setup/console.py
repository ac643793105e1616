"""One line per step, one line per failure, and children that do not outlive us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TRIES = 3
PAUSES_S = (1.0, 3.0)
"""Between the tries of a download: long enough for a dropped connection, short enough for a person."""

NETWORK_REMEDY = (
    "check the network; behind a proxy set HTTPS_PROXY, with a mirror of your own set PIP_INDEX_URL (Python) "
    "or npm_config_registry (npm), with a company's certificate set SSL_CERT_FILE and NODE_EXTRA_CA_CERTS"
)


class SetupError(Exception):
    """What is missing, and the remedy; the command ends with exit status 2."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy


class ChildFailed(Exception):
    """A child ended with another status than 0; `said` is its last line that tells something."""

    def __init__(self, name: str, said: str, *, was_stopped: bool = False) -> None:
        super().__init__(f"{name}: {said}")
        self.name = name
        self.said = said
        self.was_stopped = was_stopped


def say(text: str) -> None:
    """Print one step to standard error, at once; standard output belongs to the command that follows."""
    sys.stderr.write(f"set-up: {text}\n")
    sys.stderr.flush()


def stop_group(child: subprocess.Popen[bytes], grace_s: float = 5.0) -> None:
    """End a child that leads its own process group, and everything in that group."""
    for signal_number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal_number)
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        if signal_number == signal.SIGKILL:
            return
    child.poll()


def die_with_parent() -> None:
    """In a child before exec: ask the kernel to kill it when its parent dies, even by SIGKILL (Linux; else nothing)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def run_child(
    words: Sequence[str], log: Path, *, limit_s: float, cwd: Path, extra_environment: Mapping[str, str] | None = None
) -> None:
    """Run one program to its end, its output appended to `log`.

    Raises: ChildFailed (status, time limit, cannot start).
    """
    name = Path(words[0]).name
    environment = {**os.environ, **(extra_environment or {})}
    with log.open("ab") as sink:
        sink.write(f"\n$ {' '.join(words)}\n".encode())
        sink.flush()
        begin = sink.tell()
        try:
            child = subprocess.Popen(
                list(words),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=cwd,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise ChildFailed(name, str(error)) from error
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            stop_group(child)
            raise ChildFailed(name, f"no end after {limit_s:.0f} s", was_stopped=True) from error
        except BaseException:  # Ctrl-C, SIGTERM: the child must not go on alone
            stop_group(child)
            raise
    if status:
        raise ChildFailed(name, last_words(log, begin) or f"exit status {status}")


def last_words(log: Path, begin: int) -> str:
    """Return the line of a failed child's output that says most: the first with "error", else the last one."""
    with log.open("rb") as source:
        source.seek(begin)
        text = source.read(200_000).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    chosen = (telling or lines[-1:] or [""])[0]
    return "".join(character if character.isprintable() else "?" for character in chosen)[:200]


def with_retries(what: str, attempt: Callable[[], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Make three attempts at something that needs the network.

    Raises: SetupError with the last failure and what to set for a proxy or a mirror.
    """
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except ChildFailed as failure:
            if number == TRIES:
                raise SetupError(f"{what} not to be had in {TRIES} tries ({failure})", NETWORK_REMEDY) from failure
            say(f"{what}: try {number} of {TRIES} failed ({failure}), trying again")
            sleep(PAUSES_S[number - 1])
    return None
