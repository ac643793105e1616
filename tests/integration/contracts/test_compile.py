"""The compiled contracts are those of the sources, or of the package that others compiled.

Needs Node; the compiler and the package come by npm unless they are named.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import contracts_abi
from contracts_abi.compile import CONTRACTS, FOLDER, CompileError, compile_here, compile_sources
from contracts_abi.exported import EXPORTED, ExportError, export_from, export_here
from validator.setup.binaries import find_node


@pytest.fixture(autouse=True)
def _node_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(find_node()).parent}{os.pathsep}{os.environ['PATH']}")


def test_every_artifact_is_what_the_compiler_makes_of_the_sources() -> None:
    made = compile_here()
    assert set(made) == {f"{name}.json" for name in CONTRACTS}
    different = [name for name, text in made.items() if (FOLDER / name).read_text() != text]
    assert different == []


def test_another_version_of_the_compiler_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"version": "0.8.28"}')
    with pytest.raises(CompileError, match=r"0\.8\.28, 0\.8\.37 is needed"):
        compile_sources(tmp_path)


def test_what_others_compiled_is_what_their_package_ships() -> None:
    made = export_here()
    assert sorted(CONTRACTS + tuple(EXPORTED)) == sorted(contracts_abi.NAMES)
    assert set(made) == {f"{name}.json" for name in EXPORTED}
    assert [name for name, text in made.items() if (FOLDER / name).read_text() != text] == []


def test_another_package_than_the_one_that_is_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "@streamr/network-contracts", "version": "9.1.0"}')
    with pytest.raises(ExportError, match=r"9\.1\.0, @streamr/network-contracts 8\.2\.0 is needed"):
        export_from(tmp_path)
