"""Where a run keeps its files: one folder per run, locked while it is used, the last three of the unnamed ones kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from validator.protocol.errors import ConfigError

DEFAULT_FOLDER = Path("devnet-data")
KEPT_RUNS = 3
DISK_FLOOR_BYTES = 512 << 20
LOCK = "lock"
SOCKETS = "/tmp"  # noqa: S108  (the path of a Unix socket has at most 107 bytes, and the folder is ours alone)
_RUN_NAME = re.compile(r"run-\d{8}-\d{6}(-\d+)?")


@dataclass(slots=True)
class RunFolder:
    """The folder of one run and its lock; ``sockets`` is a temporary folder with a short path."""

    path: Path
    sockets: Path
    _lock: IO[bytes]

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def close(self) -> None:
        """Give the lock back and remove the sockets; the files stay."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        self._lock.close()


@contextlib.contextmanager
def open_folder(named: Path | None) -> Iterator[RunFolder]:
    """The run's folder: the named one, which must be new or empty, or a new one below ./devnet-data.

    Raises:
        ConfigError: it is in use, not empty, cannot be written, or its disk is nearly full.
    """
    path = named if named is not None else _next_default()
    path = path.absolute()
    _require_space(path)
    lock = _acquire(path)
    try:
        for name in ("logs", "keys", "configs", "tmp"):
            (path / name).mkdir(mode=0o700)
        folder = RunFolder(path, _make_socket_folder(), lock)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"--data: cannot write {path}: {error.strerror}; name another folder", field="data"
        ) from error
    try:
        if named is None:
            _drop_old_runs(path.parent, path)
        yield folder
    finally:
        folder.close()


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def _next_default() -> Path:
    stamp = time.strftime("run-%Y%m%d-%H%M%S")
    path = DEFAULT_FOLDER / stamp
    number = 1
    while path.exists():
        number += 1
        path = DEFAULT_FOLDER / f"{stamp}-{number}"
    return path


def _acquire(path: Path) -> IO[bytes]:
    """Make the folder and lock it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        present = set(os.listdir(path))
        lock = (path / LOCK).open("ab") if present in (set(), {LOCK}) or LOCK in present else None
    except OSError as error:
        raise ConfigError(
            f"--data: cannot write {path}: {error.strerror}; name a folder that can be written", field="data"
        ) from error
    if lock is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"--data: {path} is in use by another devnet; end that or name another folder", field="data"
            ) from error
    if lock is None or present - {LOCK}:
        if lock is not None:
            lock.close()
        raise ConfigError(f"--data: {path} is not empty; name a new or empty folder", field="data")
    return lock


def _make_socket_folder() -> Path:
    """A folder whose path is short enough for a Unix socket, named after us; those of the dead are removed."""
    for old in Path(SOCKETS).glob("logstore-devnet-*"):
        pid = old.name.split("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists() and old.stat().st_uid == os.getuid():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"logstore-devnet-{os.getpid()}-", dir=SOCKETS))


def _require_space(path: Path) -> None:
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise ConfigError(f"--data: {existing}: {error.strerror}; name another folder", field="data") from error
    if free < DISK_FLOOR_BYTES:
        raise ConfigError(
            f"--data: {free >> 20} MiB are free at {existing}, a run needs {DISK_FLOOR_BYTES >> 20} MiB; "
            "free some or name a folder on another disk",
            field="data",
        )


def _drop_old_runs(parent: Path, current: Path) -> None:
    """Remove the oldest runs below the default folder, except those in use."""
    runs = sorted(
        (entry for entry in parent.iterdir() if _RUN_NAME.fullmatch(entry.name) and entry.is_dir()),
        key=lambda entry: entry.stat().st_mtime,
    )
    others = [entry for entry in runs if entry.name != current.name]
    for old in others[: max(0, len(others) - (KEPT_RUNS - 1))]:
        with contextlib.suppress(OSError), (old / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
