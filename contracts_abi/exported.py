"""Export what others compiled: Streamr's registries of streams, nodes and storage, as their package ships them.

``python -m contracts_abi.compile`` writes it with the rest. The package is fetched with npm (``npm pack``: one archive,
nothing of it runs) unless ``LOGSTORE_STREAMR_CONTRACTS`` names the folder of an unpacked one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@streamr/network-contracts"
VERSION = "8.2.0"
EXPORTED = {
    "StreamRegistry": "contracts/StreamRegistry/StreamRegistryV5.sol:StreamRegistryV5",
    "NodeRegistry": "contracts/NodeRegistry/NodeRegistry.sol:NodeRegistry",
    "StreamStorageRegistry": "contracts/StreamStorageRegistry/StreamStorageRegistryV2.sol:StreamStorageRegistryV2",
}
"""Our name of a contract → source and name in the package."""


class ExportError(Exception):
    """The package is not to be had, or it is another one."""


def export_here() -> dict[str, str]:
    """File name → text of every artifact, from the folder that is named or a temporary copy. Raises ExportError."""
    named = os.environ.get("LOGSTORE_STREAMR_CONTRACTS")
    if named:
        return export_from(Path(named))
    with tempfile.TemporaryDirectory(prefix="logstore-streamr-") as folder:
        return export_from(fetch_package(Path(folder)))


def fetch_package(folder: Path) -> Path:
    """Unpack the package of the right version below ``folder``. Raises ExportError."""
    if shutil.which("npm") is None:
        raise ExportError("npm is not on PATH; install Node or set LOGSTORE_STREAMR_CONTRACTS to an unpacked package")
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        said = done.stderr.decode(errors="replace")[-2000:]
        raise ExportError(f"npm could not fetch {PACKAGE}@{VERSION}: {said}")
    with tarfile.open(archives[0]) as archive:
        for member in archive:  # nothing but the files that are asked for ever reaches the disk
            if member.isfile() and member.name in {f"package/{path}" for path in _wanted()}:
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    return folder / "package"


def export_from(package: Path) -> dict[str, str]:
    """File name → text of every artifact, from an unpacked package. Raises ExportError for another version."""
    described = json.loads((package / "package.json").read_text())
    if (described["name"], described["version"]) != (PACKAGE, VERSION):
        found = f"{described['name']} {described['version']}"
        raise ExportError(f"{package} is {found}, {PACKAGE} {VERSION} is needed")
    return {f"{name}.json": _artifact(package, place) for name, place in EXPORTED.items()}


def _wanted() -> set[str]:
    return {"package.json", *(_artifact_path(place) for place in EXPORTED.values())}


def _artifact_path(place: str) -> str:
    source, _, contract = place.partition(":")
    return f"dist/artifacts/{source}/{contract}.json"


def _artifact(package: Path, place: str) -> str:
    compiled = json.loads((package / _artifact_path(place)).read_text())
    artifact = {
        "abi": compiled["abi"],
        "bytecode": compiled["bytecode"],
        "deployedBytecode": compiled["deployedBytecode"],
        "package": f"{PACKAGE} {VERSION}",
        "source": place,
    }
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"
