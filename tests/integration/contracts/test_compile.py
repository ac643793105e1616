"""The compiled contracts are those of the sources. Needs Node; installs the compiler with npm unless it is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts_abi.compile import CONTRACTS, FOLDER, CompileError, compile_here, compile_sources
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
