"""``python -m tests.verifier --run DIR [--json FILE]``: status 0 verified, 1 not, 2 a folder that is none."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.verifier.chain import Chain, HttpRpc
from tests.verifier.check import check_run
from tests.verifier.folder import read_run
from tests.verifier.gateway import Gateway, HttpClient
from validator.errors import ValidatorError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.verifier", description="Check a finished run from outside.")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's folder, with run.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and failures to this file")
    options = parser.parse_args(arguments)
    try:
        run = read_run(options.run)
    except (OSError, KeyError, ValueError, TypeError, ValidatorError) as error:
        sys.stderr.write(f"--run: {options.run}: {type(error).__name__}: {error}\n")
        return 2
    rpc, http = HttpRpc(run.rpc_url), HttpClient(run.gateway_url)
    try:
        findings = check_run(run, Chain(rpc, run.contracts, run.deployment_block), Gateway(http))
    finally:
        rpc.close()
        http.close()
    if options.json is not None:
        options.json.write_text(json.dumps(findings.summary(), indent=2, sort_keys=True) + "\n")
    for failure in findings.failures:
        print(failure)
    print("verified" if findings.verified else f"not verified: {len(findings.failures)} failures")
    return 0 if findings.verified else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
