"""The child of ``net.sandbox``: verifies one bundle file under limits of its own; what it found is one line of JSON.

    python -m validator.net.sandbox.program [--memory BYTES] [--seconds CPU] [--processes N] PATH

Status 0: verified; 1: wrong, and what is wrong is named. Any other says that it was not read: 2 for wrong arguments, 3
where it cannot be read, 4 for too little memory.
"""

from __future__ import annotations

import base64
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from validator.net.sandbox.sharing import verify_shared
from validator.protocol.codec.manifest import encode_manifest
from validator.protocol.errors import MalformedInput


def main(arguments: Sequence[str]) -> int:
    """``--memory`` is what may be mapped beyond what is mapped at the start, by each process; the manifest comes
    back in base64."""
    options = list(arguments)
    limits = {"--memory": 0, "--seconds": 0, "--processes": 1}
    for name in limits:
        if name in options:
            at = options.index(name)
            limits[name] = int(options[at + 1])
            del options[at : at + 2]
    if len(options) != 1:
        sys.stderr.write(f"usage: {__spec__.name} [--memory BYTES] [--seconds CPU] [--processes N] PATH\n")
        return 2
    limit(limits["--memory"], limits["--seconds"])
    answer: dict[str, Any]
    try:
        bundle = verify_shared(Path(options[0]), limits["--processes"])
        answer = {"rows": bundle.rows, "manifest": base64.b64encode(encode_manifest(bundle.manifest)).decode()}
    except MalformedInput as error:
        answer = {"error": {"field": error.field, "reason": error.reason}}
    except MemoryError:
        sys.stderr.write("needs more memory than is allowed\n")
        return 4
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Bound what this process may still map and compute; 0 leaves it unbounded."""
    if memory_bytes:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    if cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
