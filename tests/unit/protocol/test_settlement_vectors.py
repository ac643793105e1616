"""Worked examples of settlement: numbers written down by hand, and the bytes that follow from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import paths
from tests.settlement_vectors import read_address, read_ledger, run
from validator.protocol.codec.manifest import encode_ledger, ledger_root
from validator.protocol.codec.report import encode_report
from validator.protocol.report import ConsumerLine, NodeLine, StreamLine

VECTORS = json.loads((paths.VECTORS / "settlement.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: c["name"])
def test_report_and_ledger_are_those_worked_out_by_hand(case: dict[str, Any]) -> None:
    report, ledger = run(case, VECTORS["system_stream"])
    expected = case["expected"]
    assert report.streams == tuple(
        StreamLine(index, s, int(capture), size) for index, s, capture, size in expected["streams"]
    )
    assert report.consumers == tuple(
        ConsumerLine(index, read_address(c), int(capture), size) for index, c, capture, size in expected["consumers"]
    )
    assert report.nodes == tuple(
        NodeLine(index, read_address(n), int(amount)) for index, n, amount in expected["nodes"]
    )
    assert report.treasury == int(expected["treasury"])
    assert encode_ledger(ledger) == encode_ledger(read_ledger(expected["ledger_after"]))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: c["name"])
def test_report_and_ledger_have_the_bytes_of_the_vector(case: dict[str, Any]) -> None:
    report, ledger = run(case, VECTORS["system_stream"])
    expected = case["expected"]
    assert encode_report(report).hex() == expected["report"]
    assert encode_ledger(ledger).hex() == expected["ledger"]
    assert ledger_root(ledger).hex() == expected["ledger_root"]
