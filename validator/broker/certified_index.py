"""What a broker knows of bundles, in one SQLite file of its own: small, and refilled from the chain when it is lost.

    bundles    number, root, storage id, span, block, and the manifest (zstd) while there is room
    compared   per set and stream partition: how many rows of its span were held when they were compared with the
               entry's root, and which of these are not the entry's
    late       per late set and stream partition: times and leaf hashes of its rows
    evidence   what a report says and its file does not

A manifest that gives the root in its row needs no other check. ``compared`` is a memo of what was computed from the
store: rows are only ever added, so the same count names the same rows.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zstandard

from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.manifest import MAX_MANIFEST_BYTES
from validator.protocol.errors import TransientError
from validator.protocol.model import Digest, InstanceId, Root, StorageId, StreamPart

FILE_NAME = "certified.sqlite"
MANIFESTS_BYTES = 256 << 20
"""Compressed manifests kept; older ones are fetched again when somebody asks."""
BUSY_S = 10.0
_MEMBER = struct.Struct(">Q32s")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bundles (
  number INTEGER PRIMARY KEY, root BLOB NOT NULL, storage_id BLOB NOT NULL, first_ms INTEGER NOT NULL,
  end_ms INTEGER NOT NULL, block INTEGER NOT NULL, manifest BLOB, is_compared INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS ends ON bundles (end_ms);
CREATE TABLE IF NOT EXISTS compared (
  bundle INTEGER NOT NULL, instance TEXT NOT NULL, stream_id TEXT NOT NULL, partition INTEGER NOT NULL,
  held INTEGER NOT NULL, others BLOB NOT NULL, PRIMARY KEY (instance, stream_id, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS late (
  bundle INTEGER NOT NULL, stream_id TEXT NOT NULL, partition INTEGER NOT NULL, members BLOB NOT NULL,
  PRIMARY KEY (bundle, stream_id, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evidence (
  number INTEGER NOT NULL, root BLOB NOT NULL, storage_id BLOB NOT NULL, reason TEXT NOT NULL, seen_ms INTEGER NOT NULL,
  UNIQUE (number, root, storage_id, reason));
"""
_BUNDLE = "number, root, storage_id, first_ms, end_ms, block"


@dataclass(frozen=True, slots=True)
class Compared:
    """A set that the store holds whole: so many rows lie in its span, and ``others`` of them are not the entry's."""

    held: int
    others: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A report that the contract accepted, and why its file is not what it says."""

    number: int
    root: Root
    storage_id: StorageId
    reason: str
    seen_ms: int


class CertifiedIndex:
    """Thread-safe."""

    def __init__(self, folder: Path, manifests_bytes: int = MANIFESTS_BYTES) -> None:
        """Raises TransientError: the folder cannot be written, or the file is no database."""
        self._lock = threading.RLock()
        self._manifests_bytes = manifests_bytes
        with _translated():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                folder / FILE_NAME, timeout=BUSY_S, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # --- bundles

    def add(self, bundles: Sequence[AcceptedBundle]) -> None:
        values = [(b.number, b.root, b.storage_id, b.first_ms, b.end_ms, b.block_number) for b in bundles]
        with self._use() as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO bundles ({_BUNDLE}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
                values,
            )

    def drop_from(self, number: int) -> None:
        """Forget a bundle and all behind it, with what was made of them."""
        with self._use() as connection:
            connection.execute("DELETE FROM bundles WHERE number >= ?", (number,))
            connection.execute("DELETE FROM compared WHERE bundle >= ?", (number,))
            connection.execute("DELETE FROM late WHERE bundle >= ?", (number,))

    def numbers(self) -> range:
        """Those that are known, which follow each other without gaps."""
        with self._use() as connection:
            low, high = connection.execute("SELECT min(number), max(number) FROM bundles").fetchone()
        return range(0) if low is None else range(low, high + 1)

    def bundle(self, number: int) -> AcceptedBundle | None:
        with self._use() as connection:
            found = connection.execute(
                f"SELECT {_BUNDLE} FROM bundles WHERE number = ?",  # noqa: S608
                (number,),
            ).fetchone()
        return None if found is None else _bundle(found)

    def ending_after(self, ms: int, as_of: int) -> Iterator[AcceptedBundle]:
        """Bundles up to ``as_of`` that end after ``ms``, ascending, read a page at a time."""
        number = -1
        while True:
            with self._use() as connection:
                found = connection.execute(
                    f"SELECT {_BUNDLE} FROM bundles WHERE end_ms > ? AND number > ? AND number <= ?"  # noqa: S608
                    " ORDER BY number LIMIT 256",
                    (ms, number, as_of),
                ).fetchall()
            if not found:
                return
            yield from map(_bundle, found)
            number = found[-1][0]

    def not_compared(self, from_ms: int, limit: int) -> list[AcceptedBundle]:
        """The newest bundles that hold something of ``from_ms`` or later and were not compared whole yet."""
        with self._use() as connection:
            found = connection.execute(
                f"SELECT {_BUNDLE} FROM bundles WHERE end_ms > ? AND NOT is_compared"  # noqa: S608
                " ORDER BY number DESC LIMIT ?",
                (from_ms, limit),
            ).fetchall()
        return [_bundle(row) for row in found]

    def mark_compared(self, numbers: Sequence[int]) -> None:
        with self._use() as connection:
            connection.executemany("UPDATE bundles SET is_compared = 1 WHERE number = ?", [(n,) for n in numbers])

    # --- manifests

    def keep_manifest(self, number: int, manifest: bytes) -> None:
        """Of a bundle that is known. Those of the oldest go where all are too large."""
        packed = zstandard.ZstdCompressor(level=3).compress(manifest)
        with self._use() as connection:
            connection.execute("UPDATE bundles SET manifest = ? WHERE number = ?", (packed, number))
            total = connection.execute("SELECT coalesce(sum(length(manifest)), 0) FROM bundles").fetchone()[0]
            while total > self._manifests_bytes:
                oldest, size = connection.execute(
                    "SELECT number, length(manifest) FROM bundles WHERE manifest IS NOT NULL ORDER BY number LIMIT 1"
                ).fetchone()
                connection.execute("UPDATE bundles SET manifest = NULL WHERE number = ?", (oldest,))
                total -= size

    def manifest(self, number: int) -> bytes | None:
        with self._use() as connection:
            found = connection.execute("SELECT manifest FROM bundles WHERE number = ?", (number,)).fetchone()
        if found is None or found[0] is None:
            return None
        return zstandard.ZstdDecompressor().decompress(found[0], max_output_size=MAX_MANIFEST_BYTES)

    # --- what was compared

    def keep_compared(self, bundle: int, instance: InstanceId, part: StreamPart, compared: Compared) -> None:
        others = b"".join(sorted(compared.others))
        with self._use() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO compared VALUES (?, ?, ?, ?, ?, ?)",
                (bundle, str(instance), *part, compared.held, others),
            )

    def compared(self, instance: InstanceId, part: StreamPart) -> Compared | None:
        with self._use() as connection:
            found = connection.execute(
                "SELECT held, others FROM compared WHERE instance = ? AND stream_id = ? AND partition = ?",
                (str(instance), *part),
            ).fetchone()
        if found is None:
            return None
        held, others = found
        return Compared(held, frozenset(Digest(others[at : at + 32]) for at in range(0, len(others), 32)))

    def keep_late(self, bundle: int, part: StreamPart, members: Sequence[tuple[int, Digest]]) -> None:
        packed = b"".join(_MEMBER.pack(*member) for member in members)
        with self._use() as connection:
            connection.execute("INSERT OR REPLACE INTO late VALUES (?, ?, ?, ?)", (bundle, *part, packed))

    def late(self, bundle: int, part: StreamPart) -> list[tuple[int, Digest]] | None:
        """Time and leaf hash of every row of the late set, in order; None where they were not read yet."""
        with self._use() as connection:
            found = connection.execute(
                "SELECT members FROM late WHERE bundle = ? AND stream_id = ? AND partition = ?", (bundle, *part)
            ).fetchone()
        return None if found is None else [(ms, Digest(leaf)) for ms, leaf in _MEMBER.iter_unpack(found[0])]

    def late_leaves(self, part: StreamPart, number: int, from_ms: int, until_ms: int) -> frozenset[Digest]:
        """Of rows of a span, in late sets that were read, of bundles from ``number`` on."""
        query = "SELECT members FROM late WHERE bundle >= ? AND stream_id = ? AND partition = ?"
        with self._use() as connection:
            found = connection.execute(query, (number, *part)).fetchall()
        members = (member for (packed,) in found for member in _MEMBER.iter_unpack(packed))
        return frozenset(Digest(leaf) for ms, leaf in members if from_ms <= ms < until_ms)

    # --- evidence

    def keep_evidence(self, evidence: Evidence) -> bool:
        """Whether it is news."""
        e = evidence
        with self._use() as connection:
            before = connection.total_changes
            connection.execute(
                "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
                (e.number, e.root, e.storage_id, e.reason, e.seen_ms),
            )
            return connection.total_changes > before

    def evidence(self) -> list[Evidence]:
        with self._use() as connection:
            found = connection.execute("SELECT * FROM evidence ORDER BY number, seen_ms LIMIT 1000").fetchall()
        return [Evidence(number, Root(root), StorageId(sid), reason, ms) for number, root, sid, reason, ms in found]

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """One transaction, of one thread at a time."""
        with self._lock, _translated():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise TransientError(f"{FILE_NAME}: {error}", reason="index") from error


def _bundle(row: tuple[int, bytes, bytes, int, int, int]) -> AcceptedBundle:
    number, root, storage_id, first_ms, end_ms, block = row
    return AcceptedBundle(number, Root(root), StorageId(storage_id), first_ms, end_ms, block, is_final=True)
