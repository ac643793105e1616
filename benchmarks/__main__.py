"""Dispatch to the subject's module: ``python -m benchmarks messages --help``."""

from __future__ import annotations

import importlib
import sys

SUBJECTS = (
    "bundle",
    "export",
    "messages",
    "agreement",
    "reconcile",
    "memory",
    "reports",
    "completeness",
    "broker",
    "client",
    "repair",
)
USAGE = 2


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in SUBJECTS:
        print(f"usage: python -m benchmarks {{{','.join(SUBJECTS)}}} …", file=sys.stderr)
        return USAGE
    status: int = importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
