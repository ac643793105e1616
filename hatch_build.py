"""Build hook: wheels and source archives remember the commit they are made of, in ``validator/commit.txt``.

``validator.commit`` finds it here and reads it there. The checkout is not written to, and an editable installation is
left alone: its checkout answers for itself. Where the commit is not known there is no such file.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """Adds the one generated file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        package = Path(self.root) / "validator"
        ours = _load(package / "commit.py")
        if version == "editable" or ours.read_baked(package) is not None:  # an unpacked source archive has it already
            return
        commit = ours.find_commit(package)
        if commit is None:
            return
        self._folder = tempfile.TemporaryDirectory()  # goes with the process
        path = Path(self._folder.name) / ours.FILE
        path.write_text(f"{commit}\n", encoding="ascii")
        build_data["force_include"][str(path)] = f"validator/{ours.FILE}"


def _load(path: Path) -> ModuleType:
    """The one module, alone: what the others import is not there while a build runs."""
    spec = importlib.util.spec_from_file_location("logstore_commit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
