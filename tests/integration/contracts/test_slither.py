"""slither finds nothing of high or medium impact in our contracts but what is waived in the source, with its reason."""

from __future__ import annotations

import re
from pathlib import Path

from contracts_abi.compile import FOLDER
from tests.slither import run_slither

SOURCES = FOLDER / "src"
WAIVER = re.compile(r"slither-disable")
WITH_REASON = re.compile(r"^ *// slither-disable-next-line [a-z-]+ -- \S.{10,}$")
PLANTED = """// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

contract Planted {
    mapping(address => uint256) private _held;

    function put() external payable {
        _held[msg.sender] += msg.value;
    }

    function take() external {
        (bool paid,) = msg.sender.call{value: _held[msg.sender]}("");
        if (!paid) revert();
        _held[msg.sender] = 0;
    }

    // slither-disable-next-line divide-before-multiply -- nothing is divided here
    function held() external view returns (uint256) {
        return _held[msg.sender];
    }
}
"""


def test_nothing_serious_is_open_and_no_waiver_is_idle(tmp_path: Path) -> None:
    found = run_slither(SOURCES, tmp_path)
    assert found.contracts >= len(list(SOURCES.glob("*.sol")))
    assert found.serious == ()
    assert found.unused_waivers == ()


def test_each_waiver_says_why_beside_its_line() -> None:
    lines = [
        line for path in sorted(SOURCES.glob("*.sol")) for line in path.read_text().splitlines() if WAIVER.search(line)
    ]
    assert lines
    assert [line for line in lines if not WITH_REASON.match(line)] == []


def test_a_planted_mistake_and_an_idle_waiver_are_found(tmp_path: Path) -> None:
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "Planted.sol").write_text(PLANTED)
    found = run_slither(sources, tmp_path)
    assert [finding.split(":")[0] for finding in found.serious] == ["High reentrancy-eth"]
    assert found.unused_waivers == ("Planted.sol:17",)
