"""Signatures of members over a report: which of them count, and how the contract takes them."""

from __future__ import annotations

from collections.abc import Collection

from validator.log import get_logger
from validator.ports.stored import StoredReport
from validator.protocol.codec.report import pack_signatures
from validator.protocol.codec.secp256k1 import verify_signature
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Digest
from validator.protocol.quorum import quorum
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig

log = get_logger(__name__)


def valid_signatures(context: Context, config: EpochConfig, stored: StoredReport) -> dict[Address, bytes]:
    """Attestations by members whose signature over this very report is one that the contract accepts; any other that is
    stored (an older release kept what it now refuses) counts as none."""
    return signatures_over(context, config.committee, stored.digest)


def signatures_over(context: Context, signers: Collection[Address], digest: Digest) -> dict[Address, bytes]:
    """As ``valid_signatures``, of these alone, and of a report that need not be drafted."""
    found: dict[Address, bytes] = {}
    for attestation in context.store.reports.load_attestations(digest):
        if attestation.signer not in signers:
            continue
        try:
            verify_signature(digest, attestation.signature, attestation.signer)
        except MalformedInput as error:
            log.debug("attestation.refused", report=attestation.number, reason=str(error))
            continue
        found[attestation.signer] = attestation.signature
    return found


def packed_signatures(config: EpochConfig, signatures: dict[Address, bytes]) -> tuple[int, bytes]:
    """Exactly a quorum of signatures as the contract takes them: bitmap and compact signatures in committee order."""
    needed = quorum(len(config.committee))
    chosen = {member: signatures[member] for member in [m for m in config.committee if m in signatures][:needed]}
    return pack_signatures(config.committee, chosen)
