"""``python -m tests.verifier --run DIR [--json FILE]``: status 0 verified, 1 not, 2 a folder that is none."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.verifier.chain import Chain, HttpRpc
from tests.verifier.check import check_run
from tests.verifier.claims import UNKNOWABLE
from tests.verifier.findings import Unreachable, printable, render_claims
from tests.verifier.folder import Run, read_run
from tests.verifier.gateway import Gateway, HttpClient
from validator.protocol.errors import ValidatorError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.verifier", description="Check a finished run from outside.")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's folder, with run.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, claims and failures to this file")
    options = parser.parse_args(arguments)
    try:
        run = read_run(options.run)
    except (OSError, KeyError, ValueError, TypeError, ValidatorError) as error:
        sys.stderr.write(f"--run: {options.run}: {type(error).__name__}: {error}\n")
        return 2
    summary = _check(run)
    if options.json is not None:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    for failure in summary["failures"]:
        print(failure)
    if "claims" in summary:
        print("\n".join(render_claims(summary["claims"], UNKNOWABLE)))
    failed = len(summary["failures"])
    print("verified" if summary["verified"] else f"not verified: {failed} failure{'s' * (failed != 1)}")
    return 0 if summary["verified"] else 1


def _check(run: Run) -> dict[str, Any]:
    """What was found; one failure and no claims where the network has been stopped."""
    rpc, http = HttpRpc(run.rpc_url), HttpClient(run.gateway_url)
    try:
        return check_run(run, Chain(rpc, run.contracts, run.deployment_block), Gateway(http)).summary()
    except Unreachable as error:
        reason = printable(f"{error}; a run can be checked only while its EVM node and its gateway are up")
        return {"verified": False, "failures": [reason]}
    finally:
        rpc.close()
        http.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
