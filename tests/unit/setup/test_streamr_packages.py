"""Streamr's packages: production's lock and the development network's name the same code, and no place to fetch it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT
from validator.setup import binaries
from validator.setup.console import SetupError

BRIDGE = ROOT / "validator" / "net" / "streamr" / "node" / "package-lock.json"
SDK = binaries.STREAMR_SOURCE / "package-lock.json"


def read_packages(lock: Path) -> dict[str, Any]:
    packages: dict[str, Any] = json.loads(lock.read_text())["packages"]
    return packages


def test_the_bridge_runs_in_production_on_the_code_that_is_tested_here() -> None:
    tested: dict[str, list[tuple[object, object]]] = {
        name.rpartition("node_modules/")[2]: [] for name in read_packages(SDK)
    }
    for name, package in read_packages(SDK).items():
        tested[name.rpartition("node_modules/")[2]].append((package.get("version"), package.get("integrity")))
    own = {name: package for name, package in read_packages(BRIDGE).items() if name.startswith("node_modules/")}
    assert len(own) > 100
    for name, package in own.items():
        known = tested[name.rpartition("node_modules/")[2]]
        assert (package.get("version"), package.get("integrity")) in known, name


@pytest.mark.parametrize("lock", [BRIDGE, SDK])
def test_locks_hold_a_hash_for_everything_that_is_fetched_and_no_address(lock: Path) -> None:
    for name, package in read_packages(lock).items():
        is_ours = name == "" or "stubs" in name or package.get("link")
        assert is_ours or package["integrity"].startswith("sha512-"), name
        assert "://" not in str(package.get("resolved", "")), name
    assert "@streamr/trackerless-network" in read_packages(lock)[""]["dependencies"]


def test_packages_that_are_not_there_are_named_with_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGSTORE_NODE_BIN", "/bin/true")
    monkeypatch.setattr(binaries, "STREAMR_FOLDER", tmp_path)
    monkeypatch.delenv("LOGSTORE_STREAMR_PACKAGES", raising=False)
    with pytest.raises(SetupError, match=r"Streamr's packages are not in .*: run python3 -m validator.setup install"):
        binaries.find_streamr()
    monkeypatch.setenv("LOGSTORE_STREAMR_PACKAGES", "/nowhere")
    with pytest.raises(SetupError, match="correct or unset LOGSTORE_STREAMR_PACKAGES"):
        binaries.find_streamr()


@pytest.mark.parametrize(("said", "problem"), [("v18.1.0", "is version v18.1.0"), ("no", "does not run")])
def test_a_node_that_is_too_old_is_refused(tmp_path: Path, said: str, problem: str) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {said}\n")
    node.chmod(0o755)
    with pytest.raises(SetupError, match=problem):
        binaries.require_new_node(str(node))
