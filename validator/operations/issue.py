"""``logstore-validator report-issue``: what whoever helps needs to know, in one archive without secrets.

Of settings only names and what holds no secret by its kind; of URLs scheme and host. Nothing is sent anywhere.
"""

from __future__ import annotations

import io
import json
import platform
import tarfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

from validator.log import spell_controls, trim_urls
from validator.operations.check import run_checks
from validator.operations.watching import ask_status
from validator.protocol.errors import ConfigError
from validator.settings import Settings, given_values
from validator.version import describe_version

MAX_PART = 8 << 20
SECRET_KINDS = ("KEY", "PASSWORD", "WALLET", "AUTH", "SECRET", "TOKEN", "LOGIN")


def write_archive(settings: Settings, path: Path) -> list[str]:
    """A new archive; names of its parts. Raises ConfigError: the file is there, or cannot be written."""
    try:
        with path.open("xb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            names = []
            for name, text in collect_parts(settings):
                data = redact(text).encode(errors="replace")[:MAX_PART]
                entry = tarfile.TarInfo(f"logstore-issue/{name}")
                entry.size, entry.mode = len(data), 0o600
                archive.addfile(entry, io.BytesIO(data))
                names.append(name)
            return names
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", field="FILE") from error


def collect_parts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Name and text of each part."""
    yield (
        "version.txt",
        f"{describe_version('logstore-validator')}\nPython {platform.python_version()}, {platform.platform()}\n",
    )
    yield "settings.txt", "".join(f"{line}\n" for line in describe_settings(given_values()))
    yield "network.toml", settings.network_file.read_text(errors="replace")
    yield "check.txt", "".join(f"{f.level:<5}{f.name:<20}{f.text}\n" for f in run_checks())
    told = ask_status(settings)
    yield "status.json", json.dumps(told.data, indent=1) if told.data is not None else f"{told.text}\n"
    yield "packages.txt", "".join(sorted(f"{d.name}=={d.version}\n" for d in distributions()))


def describe_settings(given: Mapping[str, str]) -> Iterator[str]:
    """Names that are set; values only where their kind holds no secret."""
    for name, value in sorted(given.items()):
        hidden = not name.endswith("_FILE") and any(kind in name for kind in SECRET_KINDS)
        yield f"{name}={'(set)' if hidden else redact(value)}"


def redact(text: str) -> str:
    """URLs without credentials, paths and queries; control characters spelt out."""
    return spell_controls(trim_urls(text))
