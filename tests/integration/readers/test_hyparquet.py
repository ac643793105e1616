"""hyparquet, which reads Parquet in browsers and Node: it gives every value of every column of a bundle's file."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.readers.conftest import ReadBundle
from validator.setup.binaries import find_node, find_npm
from validator.setup.console import SetupError


def test_hyparquet_gives_every_value_of_every_column(bundle: ReadBundle, tmp_path: Path) -> None:
    try:
        npm, node = find_npm(), find_node()
    except SetupError as error:
        pytest.skip(f"hyparquet needs npm and Node: {error}")
    (tmp_path / "package.json").write_text('{"private": true}')
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    packages = ["hyparquet@1.33.0", "hyparquet-compressors@1.1.2"]
    words = [*npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=100, env=environment)
    program = Path(__file__).with_name("hyparquet.mjs")
    done = subprocess.run(
        [node, str(program), str(bundle.path)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == bundle.rows
