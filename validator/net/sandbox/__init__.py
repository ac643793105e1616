"""Reading foreign bundle files in a child process (``program``), with a limit on memory and a deadline.

A consumer's child shares a large file among several (``sharing``).

A Parquet page of a few kilobytes can expand to gigabytes whatever its footer says, and the library that reads it is
large: what goes wrong there ends the child, not the worker.

Only a child that has read the bytes and says so can find them wrong. One that was killed, crashed, ran out of memory
or time, or could not read its file has not: that is ``ReaderFailed``, whatever the cause. What it may use grows with
what the agreed manifest names, the same on all machines, so what honest members certify can always be read.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from validator.child import ChildFailed, run_program
from validator.ports.storage import ReaderFailed
from validator.protocol.codec.bundle import VerifiedBundle
from validator.protocol.codec.manifest import decode_manifest, manifest_root
from validator.protocol.codec.manifest_rules import check_same_manifest
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Manifest

DEFAULT_TIMEOUT_S = 300.0
DEFAULT_MEMORY_BYTES = 1 << 30
BYTES_PER_S = 1 << 20
"""Beyond the default, a second for so many canonical bytes; a slow machine reads tens of times as many."""
BYTES_PER_ROW = 512
"""Beyond the default, memory for one row's leaf and its place in the tree."""
_PROGRAM = f"{__name__}.program"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The port ``BundleReader``: ``verify_bundle_file`` in a process of its own.

    ``memory_bytes``: what reading may map, beside interpreter and libraries. It and the time are more for a large
    expected manifest. ``processes``: which share a large file, each with that memory; a machine of validators has one
    file beside another, a consumer's waits for one.
    """

    timeout_s: float = DEFAULT_TIMEOUT_S
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    processes: int = 1

    def verify(self, path: Path, expected: Manifest | None = None) -> VerifiedBundle:
        """Read the file whole.

        Raises:
            MalformedInput: the file was read, and is not a bundle or not the expected one; names what differs.
            ReaderFailed: it was not read to the end.
        """
        timeout_s, memory_bytes = self.timeout_s, self.memory_bytes
        if expected is not None:
            entries = [e for c in (*expected.windows, expected.late) for e in c.outcome.entries]
            timeout_s += sum(e.canonical_bytes for e in entries) / BYTES_PER_S
            memory_bytes += sum(e.count for e in entries) * BYTES_PER_ROW
        manifest, rows = _read(path, timeout_s, memory_bytes, self.processes)
        if expected is not None:
            check_same_manifest(manifest, expected)
        return VerifiedBundle(manifest, manifest_root(manifest), rows)


def _read(path: Path, timeout_s: float, memory_bytes: int, processes: int) -> tuple[Manifest, int]:
    """What the child says of the file: its manifest and number of rows."""
    limits = ["--memory", str(memory_bytes), "--seconds", str(int(timeout_s) + 1), "--processes", str(processes)]
    try:
        values = run_program(_PROGRAM, [*limits, str(path.resolve())], timeout_s=timeout_s)
    except ChildFailed as error:
        raise ReaderFailed(f"bundle: its reader {error}", path=str(path)) from error
    if "error" in values:
        raise MalformedInput(str(values["error"]["field"]), str(values["error"]["reason"]))
    return decode_manifest(base64.b64decode(values["manifest"])), values["rows"]
