"""``python -m tests.mutants [WORD…]``: plant each mistake of the shell, run its test, and print the table.

Words choose mistakes whose module, claim or test holds one of them. Ends with status 1 if a mistake is not noticed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tests.mutants.planting import Mutant, planted
from tests.mutants.session import Session, run_session
from tests.mutants.shell import MUTANTS


def main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.module} {m.claim} {m.test}" for w in words)]
    missed: list[Mutant] = []

    def run(session: Session) -> None:
        sound = {test: session.passes(test) for test in dict.fromkeys(mutant.test for mutant in chosen)}
        for mutant in chosen:
            began = time.monotonic()
            with planted(mutant):
                caught = sound[mutant.test] and not session.passes(mutant.test)
            word = "caught" if caught else "MISSED" if sound[mutant.test] else "TEST FAILS WITHOUT IT"
            if not caught:
                missed.append(mutant)
            where = mutant.module.removeprefix("validator.")
            print(
                f"{word:7} {time.monotonic() - began:5.1f} s  {where:16} {mutant.claim}  <- {mutant.test}", flush=True
            )

    run_session([mutant.test for mutant in chosen], run)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mistakes are noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
