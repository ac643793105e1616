"""Which manifests are good: what follows from a manifest alone, certificates included, and when two are the same."""

from __future__ import annotations

from validator.protocol.codec.certificate import verify_certificate
from validator.protocol.codec.config import decode_config
from validator.protocol.codec.ledger_changes import check_ledger_part
from validator.protocol.codec.manifest import encode_header
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, require
from validator.protocol.hashing import hash_object
from validator.protocol.model import BundleHeader, Certified, InstanceId, InstanceKind, Manifest
from validator.protocol.parameters import Config

CODEC_VERSION = 3


def check_manifest(manifest: Manifest) -> Config:
    """Check all that follows from the manifest alone, certificates included; returns the config it names.

    That the config digest is the network's own is for the caller: only the chain knows.

    Raises:
        MalformedInput: names what differs.
    """
    header = manifest.header
    config = decode_config(manifest.config_preimage)
    digest = hash_object(manifest.config_preimage)
    require(digest == header.config_digest, "header.config_digest", "not the preimage's")
    require(manifest.codec_versions == (CODEC_VERSION,), "manifest.codec_versions", f"not ({CODEC_VERSION},)")
    check_ledger_part(manifest.ledger)
    window_ms = config.parameters.window_ms
    require(len(manifest.windows) <= config.parameters.bundle_windows, "manifest.windows", "more than a bundle holds")
    for index, certified in enumerate(manifest.windows):
        instance = InstanceId(InstanceKind.WINDOW, header.first_ms + index * window_ms)
        _check_certified(certified, instance, header, config)
    last_ms = header.first_ms + (len(manifest.windows) - 1) * window_ms
    require(header.last_ms == last_ms, "header.last_ms", "not the start of the last window")
    late = manifest.late
    _check_certified(late, InstanceId(InstanceKind.LATE, header.number), header, config)
    require(not late.outcome.price and not late.outcome.shares, "manifest.late", "a late set has no price, no shares")
    return config


def bundle_end_ms(manifest: Manifest) -> int:
    """End of the last window. Raises MalformedInput if the preimage is none."""
    return manifest.header.last_ms + decode_config(manifest.config_preimage).parameters.window_ms


def check_same_manifest(found: Manifest, expected: Manifest) -> None:
    """Whether two manifests are equal byte for byte, certificates apart: those may have other signers or rounds.

    Raises:
        MalformedInput: names the first part that differs.
    """
    for what, ours, theirs in (
        ("manifest.header", encode_header(expected.header), encode_header(found.header)),
        ("manifest.config_preimage", expected.config_preimage, found.config_preimage),
        ("manifest.ledger", expected.ledger, found.ledger),
        ("manifest.codec_versions", expected.codec_versions, found.codec_versions),
        ("manifest.windows", len(expected.windows), len(found.windows)),
    ):
        require(ours == theirs, what, "not the one that is agreed")
    pairs = zip((*found.windows, found.late), (*expected.windows, expected.late), strict=True)
    for theirs_certified, ours_certified in pairs:
        instance = ours_certified.outcome.instance
        same = outcome_digest(theirs_certified.outcome) == outcome_digest(ours_certified.outcome)
        require(same, f"manifest {instance}", "not the outcome that is agreed")


def _check_certified(certified: Certified, instance: InstanceId, header: BundleHeader, config: Config) -> None:
    outcome, certificate = certified.outcome, certified.certificate
    what = f"certificate {instance}"
    require(outcome.instance == instance, f"outcome {instance}", f"decides {outcome.instance}")
    context = SigningContext(config.chain_id, config.contracts.report_manager)
    try:
        verify_certificate(
            certificate, header.config_digest, instance, config.committee, context, outcome_digest(outcome)
        )
    except MalformedInput as error:
        raise MalformedInput(what, str(error.reason)) from error


def canonical_bytes(manifest: Manifest) -> int:
    return sum(c.outcome.canonical_bytes for c in (*manifest.windows, manifest.late))
