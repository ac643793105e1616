"""The port ``BundleWriter``: files of bundles, written in a child process (``bundle_program``) from the files of sets.

Parquet's library, and a row group of every column beside it, take 40 MiB and more of a process that needs them once in
an hour; allocators give little of it back. So who seals lives as lean after a thousand bundles as after none, and a
kernel that is short of memory ends the child, not the worker.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from validator.child import ChildFailed, foreign_environment, run_program
from validator.protocol.codec.bundle import BundleFile
from validator.protocol.codec.manifest import encode_manifest
from validator.protocol.codec.manifest_rules import canonical_bytes
from validator.protocol.errors import InvariantError, TransientError
from validator.protocol.model import Digest, Manifest, Root
from validator.store.segments import SETS_URL
from validator.store.sets import SetRows

LEAST_S = 300.0
BYTES_PER_S = 1 << 20
"""A second more for so many canonical bytes; a slow machine writes tens of times as many."""
_PROGRAM = "validator.store.bundle_program"


class ChildWriter:
    """Writes from the sets below ``url``; what a child finds damaged there is looked at, and noted, by ``sets``."""

    def __init__(self, sets: SetRows, url: str) -> None:
        self._sets = sets
        self._url = url

    def write(self, path: Path, manifest: Manifest) -> BundleFile:
        """Raises TransientError, InvariantError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TransientError(f"{path}: cannot write: {error.strerror or error}") from error
        try:
            values = run_program(
                _PROGRAM,
                [str(path.resolve())],
                given=encode_manifest(manifest),
                timeout_s=LEAST_S + canonical_bytes(manifest) / BYTES_PER_S,
                environment=foreign_environment() | {SETS_URL: self._url},
            )
        except ChildFailed as error:
            raise TransientError(f"{path}: its writer {error}") from error
        if "sha256" not in values:
            self._explain(path, values)
        return BundleFile(path, values["size"], Digest(bytes.fromhex(values["sha256"])), values["rows"])

    def _explain(self, path: Path, values: dict[str, Any]) -> None:
        """Raises what the child could not."""
        if "wrong" in values:
            raise InvariantError(values["wrong"])
        if "damaged" in values:
            deque(self._sets.iterate(Root(bytes.fromhex(values["damaged"]))), maxlen=0)  # notes it, and raises
        raise TransientError(f"{path}: cannot write: {values['reason']}")
