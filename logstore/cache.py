"""The cache folder of one network: what was downloaded, within a bound, for several programs at once.

    bundles/<number>-<root>.parquet             verified whole: its rows give the root in its name
    unverified/<number>-<storage id>.parquet    only checked against its transaction
    manifests/<root>.cbor                       what a bundle holds, without its rows
    .locks/                                     who works on which bundle; and that somebody reads here

A file gets its name when it is complete, and the first name after it was verified: what lies there was, by whoever may
write there. Of two programs that want one bundle, one downloads and verifies it, and the other waits for that.

Who reads here holds a lock with the others that do. A program that comes while nobody else is here holds it alone for a
moment and tidies: what was unused for longest goes until the rest keeps the bound, and what programs that were killed
have left. So nothing goes that somebody reads, and one question may need more than the bound.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from logstore.files import written_whole
from logstore.output import Output
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.errors import ConfigError
from validator.protocol.model import Root, StorageId

LOCKS = ".locks"
KINDS = ("bundles", "unverified", "manifests")


class Cache:
    """Names, locks and the bound. One thread; several objects, in any number of processes, share a folder."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._in_use: int | None = None

    def close(self) -> None:
        """Others may tidy again."""
        if self._in_use is not None:
            os.close(self._in_use)
            self._in_use = None

    def open(self) -> None:
        """Begin to read here, after tidying if nobody else does. Called again it lets go of what was read before.

        Raises:
            ConfigError: the folder cannot be written.
        """
        self.close()
        with _named(self.folder):
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            self._in_use = os.open(self.folder / LOCKS / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if _try_lock(self._in_use, fcntl.LOCK_EX):
                self._tidy()
            fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def bundle(self, number: int, root: Root) -> Path:
        return self.folder / "bundles" / f"{number}-{root.hex()}.parquet"

    def unverified(self, number: int, storage_id: StorageId) -> Path:
        return self.folder / "unverified" / f"{number}-{encode_storage_id(storage_id)}.parquet"

    def manifest(self, root: Root) -> Path:
        return self.folder / "manifests" / f"{root.hex()}.cbor"

    def holds(self, path: Path) -> bool:
        """Whether the file is here; it counts as used now."""
        try:
            os.utime(path)
        except OSError:
            return path.exists()
        return True

    @contextmanager
    def locked(self, number: int, output: Output) -> Iterator[None]:
        """While one works on a bundle, others who want the same wait."""
        with _named(self.folder):
            lock = os.open(self.folder / LOCKS / f"bundle-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _try_lock(lock, fcntl.LOCK_EX):
                with output.busy(f"waiting for another program that fetches bundle {number}"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def write(self, path: Path, data: bytes) -> None:
        """The file complete, or not at all."""
        with _named(self.folder), written_whole(path) as file:
            file.write(data)

    def promote(self, unverified: Path, path: Path) -> None:
        """Give a verified file its name. The other stays for programs that read it unverified, until one tidies."""
        with _named(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            with unverified.open("rb") as file:
                os.fsync(file.fileno())  # a name that says verified must not survive a power loss alone
            try:
                os.link(unverified, path)
            except FileExistsError:
                return
            except OSError:  # a file system without links
                os.replace(unverified, path)

    def _tidy(self) -> None:
        for left in (*self.folder.glob("*/*.part"), *(self.folder / LOCKS).glob("bundle-*")):
            left.unlink(missing_ok=True)
        for left in self.folder.glob("spill-*"):
            shutil.rmtree(left, ignore_errors=True)
        verified = {path.stat().st_ino for path in (self.folder / "bundles").glob("*")}
        for path in (self.folder / "unverified").glob("*"):
            if path.stat().st_ino in verified:
                path.unlink(missing_ok=True)
        found = [(path, path.stat()) for kind in KINDS for path in (self.folder / kind).glob("*")]
        total = sum(status.st_size for _, status in found)
        for path, status in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if total <= self._limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size


def _try_lock(descriptor: int, kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Errors of the file system as what a reader can mend. Raises ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cache folder {folder}: {error.strerror or error}; name another with --cache or LOGSTORE_CACHE_DIR",
            field="cache",
        ) from error
