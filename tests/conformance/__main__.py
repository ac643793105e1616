"""Dispatch to the subject's module: ``python -m tests.conformance streamr FILE``."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import tests.conformance

USAGE = 2


def main(arguments: list[str]) -> int:
    subjects = sorted(m.name for m in pkgutil.iter_modules(tests.conformance.__path__) if m.name != "__main__")
    if not arguments or arguments[0] not in subjects:
        print(f"usage: python -m tests.conformance {{{','.join(subjects)}}} …", file=sys.stderr)
        return USAGE
    module = importlib.import_module(f"tests.conformance.{arguments[0]}")
    status: int = module.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
