"""The check counts how what lies on Arweave was signed, and misses a way that publishers sign in."""

from __future__ import annotations

import pytest

from tests.verifier.findings import Findings
from tests.verifier.messages import ENOUGH_MESSAGES, STREAMR_TYPES, check_signature_types
from validator.protocol.model import SignatureType


def checked(counts: dict[SignatureType, int], delivered: int = ENOUGH_MESSAGES) -> Findings:
    findings = Findings()
    check_signature_types(counts, delivered, findings)
    return findings


def test_a_run_with_all_of_them_is_counted_by_name() -> None:
    findings = checked({kind: number for number, kind in enumerate(STREAMR_TYPES, 1)})
    assert findings.verified
    assert findings.figures["signature_types"] == {
        "ECDSA_SECP256K1_LEGACY": 1,
        "ECDSA_SECP256K1_EVM": 2,
        "ERC_1271": 3,
        "ML_DSA_87": 4,
        "ECDSA_SECP256R1": 5,
    }


@pytest.mark.parametrize("missing", STREAMR_TYPES, ids=lambda kind: kind.name)
def test_a_run_of_many_messages_that_lacks_one_fails_by_its_name(missing: SignatureType) -> None:
    findings = checked({kind: 9 for kind in STREAMR_TYPES if kind is not missing})
    (failure,) = findings.failures
    assert missing.name in failure
    assert findings.figures["signature_types"][missing.name] == 0


def test_a_run_of_a_few_messages_may_lack_some() -> None:
    assert checked({SignatureType.ECDSA_SECP256K1_EVM: 3}, ENOUGH_MESSAGES - 1).verified
