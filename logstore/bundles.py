"""Files of bundles: downloaded from the first gateway that has them, verified, and kept in the cache folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from logstore.cache import Cache
from logstore.errors import Refused
from logstore.output import Output
from logstore.verification import Verdict, ask_contract, check_tags, verify_file
from validator.net.arweave.ranges import fetch_footer
from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.bundle_file import read_manifest
from validator.protocol.codec.bundle_front import read_tail
from validator.protocol.codec.manifest import decode_manifest, encode_manifest, manifest_root
from validator.protocol.errors import ConfigError, MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Manifest, StorageId

if TYPE_CHECKING:
    from logstore.connection import Connection

MAX_FILE_BYTES = 8 << 30
"""No bundle is larger, whatever its transaction says."""


class Bundles:
    """Files by bundle. One thread."""

    def __init__(self, connection: Connection) -> None:
        """Raises ConfigError: the cache folder cannot be written."""
        self._connection = connection
        self.cache = Cache(connection.sources.cache, connection.sources.cache_bytes)
        self.cache.open()

    def close(self) -> None:
        """Files of the cache folder may go."""
        self.cache.close()

    def fetch(self, bundle: AcceptedBundle, output: Output, *, verify: bool = True) -> Path:
        """The bundle's file in the cache folder, downloaded if it is not there.

        Raises:
            Refused: the file is not the bundle that the contract holds.
            TransientError, RemoteFault: no gateway has it.
        """
        cache = self.cache
        path = cache.bundle(bundle.number, bundle.root)
        with cache.locked(bundle.number, output):
            if cache.holds(path):
                return path
            name = f"bundle {bundle.number}"
            raw = cache.unverified(bundle.number, bundle.storage_id)
            if not cache.holds(raw):
                self.download(bundle.storage_id, raw, output, name)
            if not verify:
                return raw
            try:
                self._verify(
                    name,
                    raw,
                    bundle.storage_id,
                    output,
                    lambda verdict: ask_contract(name, verdict, self._connection.reports),
                )
            except Refused:
                raw.unlink(missing_ok=True)
                raise
            cache.promote(raw, path)
        return path

    def download(self, storage_id: StorageId, path: Path, output: Output, label: str) -> None:
        """What a transaction carries, checked against its signature and data root, to a path."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with output.progress(label) as on_progress:
                self._connection.weave.download(storage_id, path, MAX_FILE_BYTES, on_progress)
        except OSError as error:
            raise ConfigError(
                f"{path.parent}: {error.strerror or error}; name another folder", field="folder"
            ) from error

    def save(self, bundle: AcceptedBundle, path: Path, output: Output, *, verify: bool) -> None:
        """The bundle's file at a path of the caller's: there complete, or not at all."""
        held = self.fetch(bundle, output, verify=verify)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(held, partial)
            os.replace(partial, path)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}", field="output") from error
        finally:
            partial.unlink(missing_ok=True)

    def fetch_manifest(self, bundle: AcceptedBundle, output: Output, *, verify: bool = True) -> Manifest:
        """What the bundle holds, without its rows; it gives the root that the contract holds."""
        kept = self._read_kept(bundle)
        if kept is not None:
            return kept
        try:
            manifest = self._fetch_front(bundle)
        except (
            RemoteFault,
            TransientError,
        ):  # a gateway that lies, or has it by chunks only: the file itself will tell
            manifest = read_manifest(self.fetch(bundle, output, verify=verify))
        if manifest_root(manifest) != bundle.root:
            raise Refused(f"bundle {bundle.number}", "bundle.root", "not the one that the contract holds")
        self.cache.write(self.cache.manifest(bundle.root), encode_manifest(manifest))
        return manifest

    def _read_kept(self, bundle: AcceptedBundle) -> Manifest | None:
        """The manifest in the cache folder, if one is there and gives the root; a damaged one is fetched again."""
        path = self.cache.manifest(bundle.root)
        with suppress(MalformedInput):
            manifest = decode_manifest(path.read_bytes()) if self.cache.holds(path) else None
            return manifest if manifest is not None and manifest_root(manifest) == bundle.root else None
        return None

    def _fetch_front(self, bundle: AcceptedBundle) -> Manifest:
        """The manifest out of the file's last bytes, if it gives the root that the contract holds.

        Raises:
            RemoteFault: what a gateway gave is not that.
            TransientError: no gateway has it.
        """
        size, tail = fetch_footer(self._connection.weave, bundle.storage_id)
        _, manifest = read_tail(size, tail)
        if manifest_root(manifest) != bundle.root:
            raise RemoteFault(f"bundle {bundle.number}: a manifest of another root")
        return manifest

    def verify_again(
        self,
        subject: str,
        storage_id: StorageId,
        output: Output,
        ask: Callable[[Verdict], Verdict],
        *,
        signatures: bool = False,
    ) -> Verdict:
        """Download what a transaction carries, whatever is kept here, and judge it."""
        with tempfile.TemporaryDirectory(prefix="logstore-") as folder:
            path = Path(folder) / "bundle.parquet"
            self.download(storage_id, path, output, subject)
            return self._verify(subject, path, storage_id, output, ask, signatures=signatures)

    def _verify(
        self,
        subject: str,
        path: Path,
        storage_id: StorageId,
        output: Output,
        ask: Callable[[Verdict], Verdict],
        *,
        signatures: bool = False,
    ) -> Verdict:
        """The verdict on what a transaction carried. Raises Refused, and what ``verify_file`` raises."""
        tags = self._connection.weave.fetch_transaction(storage_id).tags
        try:
            with output.busy(f"verifying {subject}"):
                verdict = verify_file(path, self._connection.network, signatures=signatures)
        except Refused as error:
            raise Refused(subject, error.field, error.reason) from error
        check_tags(subject, tags, verdict)
        return ask(verdict)
