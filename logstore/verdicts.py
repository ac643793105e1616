"""A verdict on whatever a reader holds: a bundle by its file, number or Arweave id, or a proof by its file or bytes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from logstore.errors import Refused
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.proofs import Proof
    from logstore.store import LogStore
    from logstore.stored_message import MessageVerdict
    from logstore.stored_range import RangeVerdict
    from logstore.verification import Verdict
    from validator.protocol.parameters import Network

    AnyVerdict: TypeAlias = Verdict | MessageVerdict | RangeVerdict

STORAGE_ID = re.compile(r"[A-Za-z0-9_-]{43}")
SCHEME = "ar://"
"""What an Arweave id may begin with; without it an id that begins with a dash looks like an option."""
HEAD_BYTES = 32
"""A proof says within them what it is."""


def parse_root(text: str | bytes) -> bytes:
    """Raises ConfigError."""
    if isinstance(text, bytes) and len(text) == 32:
        return text
    if isinstance(text, bytes) or not re.fullmatch("(0x)?[0-9a-fA-F]{64}", text):
        raise ConfigError("--root: not 0x and 64 hex digits", field="root")
    return bytes.fromhex(text.removeprefix("0x"))


def require_there(target: str) -> None:
    """Whether a word may be a file, an Arweave id or a bundle's number, before anybody is asked. Raises ConfigError."""
    is_number = target.isascii() and target.isdecimal()
    if not (is_number or STORAGE_ID.fullmatch(target.removeprefix(SCHEME)) or Path(target).exists()):
        raise ConfigError(f"{target}: no such file, and neither an Arweave id nor a bundle's number", field="target")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a verdict may stand on. ``store``: the contract and the gateways; None: nobody is asked."""

    network: Network | None
    store: LogStore | None
    output: Output
    roots: Sequence[bytes] = ()
    """Which the caller knows."""
    signatures: bool = False

    def verify(self, target: str | Path | bytes | int | Proof) -> AnyVerdict:
        """Raises as ``LogStore.verify``."""
        if isinstance(target, int):
            return self._verify_remote(str(target))
        if isinstance(target, bytes):
            return self._verify_bytes(target)
        if not isinstance(target, str | Path):
            return self._verify_bytes(target.data)
        path = Path(target)
        if path.is_dir():
            raise ConfigError(f"{path}: a folder; name a file", field="target")
        return self._verify_path(path) if path.exists() else self._verify_remote(str(target))

    def _verify_bytes(self, data: bytes) -> AnyVerdict:
        proven = self._verify_proof("proof", data)
        if proven is not None:
            return proven
        with tempfile.TemporaryDirectory(prefix="logstore-") as folder:
            path = Path(folder) / "bundle.parquet"
            path.write_bytes(data)
            return self._verify_bundle(path)

    def _verify_path(self, path: Path) -> AnyVerdict:
        from logstore.stored_range import MAX_FILE_BYTES

        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            is_proof = self._kind_of(head) is not None
            data = head + file.read(MAX_FILE_BYTES + 1) if is_proof else b""
        proven = self._verify_proof(path.name, data)
        return self._verify_bundle(path) if proven is None else proven

    def _kind_of(self, data: bytes) -> str | None:
        """Of a proof; None: it is none."""
        from logstore import stored_message, stored_range
        from validator.protocol.codec import stored_message as message_codec

        kinds = (message_codec.KIND, stored_range.KIND)
        return next((kind for kind in kinds if stored_message.is_of_kind(data, kind)), None)

    def _verify_proof(self, subject: str, data: bytes) -> MessageVerdict | RangeVerdict | None:
        """None: these bytes are no proof."""
        from logstore import stored_message, stored_range

        kind = self._kind_of(data)
        if kind is None:
            return None
        if kind == stored_range.KIND:
            span = stored_range.verify_stored_range(subject, data, self.network, self.roots or None)
            return span if self.store is None else stored_range.ask_contract(subject, span, self.store.reports)
        if len(self.roots) > 1:
            raise ConfigError("--root: a message lies in one bundle; name one root", field="root")
        verdict = stored_message.verify_stored(subject, data, self.network, self.roots[0] if self.roots else None)
        return verdict if self.store is None else stored_message.ask_contract(subject, verdict, self.store.reports)

    def _verify_bundle(self, path: Path) -> Verdict:
        from logstore.verification import ask_contract, verify_file

        self._require_one_root()
        reports = None if self.store is None else self.store.reports
        with self.output.busy(f"verifying {path.name}"):
            verdict = verify_file(path, self.network, signatures=self.signatures)
        if reports is not None:
            verdict = ask_contract(path.name, verdict, reports)
        return self._with_root(path.name, verdict)

    def _verify_remote(self, target: str) -> Verdict:
        from logstore.verification import ask_contract
        from validator.protocol.codec.arweave_text import decode_storage_id

        store = self.store
        self._require_one_root()
        require_there(target)
        if store is None:
            raise ConfigError(f"{target}: no such file, and nothing is fetched with --offline", field="target")
        if target.isascii() and target.isdecimal():
            bundle = store.reports.fetch(int(target[:18]))
            if bundle is None:
                raise ConfigError(f"bundle {target}: the contract has accepted {store.reports.count}", field="target")
            storage_id = bundle.storage_id
        else:
            storage_id = decode_storage_id(target.removeprefix(SCHEME))
        verdict = store.bundles.verify_again(
            target,
            storage_id,
            self.output,
            lambda verdict: ask_contract(target, verdict, store.reports),
            signatures=self.signatures,
        )
        return self._with_root(target, verdict)

    def _require_one_root(self) -> None:
        if len(self.roots) > 1:
            raise ConfigError("--root: a bundle has one", field="root")

    def _with_root(self, subject: str, verdict: Verdict) -> Verdict:
        if not self.roots:
            return verdict
        if verdict.root != self.roots[0]:
            raise Refused(subject, "bundle.root", f"0x{verdict.root.hex()}, not the one that you named")
        return replace(verdict, is_root_known=True)


def describe_verdict(verdict: AnyVerdict) -> dict[str, object]:
    """As JSON values."""
    from logstore import stored_message, stored_range, verification

    if isinstance(verdict, stored_message.MessageVerdict):
        return stored_message.describe(verdict)
    if isinstance(verdict, stored_range.RangeVerdict):
        return stored_range.describe(verdict)
    return verification.describe(verdict)
