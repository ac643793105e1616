"""Who lied, and how it was caught: a consumer asks the liar as anybody does, and other brokers say what they found.

The consumer is ``logstore query`` with the proof on, stream after stream until an answer is refused; the refusal's
field is the lie's name. Brokers find a lie by mending, and some only once a broker has twice said that it took a
message, which takes two minutes, so they are waited for. What is expected of each kind is ``lying.CAUGHT``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from validator.devnet.folder import RunFolder
from validator.devnet.lying import CAUGHT
from validator.devnet.plan import LyingKind, Options, broker_name, liar_index, make_key, validator_name
from validator.devnet.progress import read_field
from validator.devnet.roles import child_environment
from validator.setup.binaries import ROOT

QUERY_LIMIT_S = 60.0
REPAIR_LIMIT_S = 240.0
PAUSE_S = 1.0


def catch_liar(
    folder: RunFolder,
    options: Options,
    urls: Sequence[str],
    operator_urls: Sequence[str],
    parts: Sequence[tuple[str, int]],
    span: tuple[int, int],
) -> dict[str, Any]:
    """For the summary: ``consumer`` is the refusal, ``brokers`` what each honest one has counted; and ``failures``."""
    kind, index = LyingKind(options.lying_broker or ""), liar_index(options)
    address = f"0x{make_key(options.seed, broker_name(index), 'node').address.hex()}"
    expected = CAUGHT[kind]
    refusal = _ask_until_refused(folder, urls[index], parts, span)
    honest = {broker_name(n): url for n, url in enumerate(operator_urls) if n != index}
    lies = _wait_for_lies(honest, address, expected.lie)
    failures = []
    if not str(refusal.get("field", "")).startswith(expected.field):
        said = refusal.get("error", "nothing")
        failures.append(f"{broker_name(index)} {kind}: a consumer refuses {said}, where {expected.field} is false")
    if not any(expected.lie in counts for counts in lies.values()):
        failures.append(f"{broker_name(index)} {kind}: no broker has caught it at {expected.lie}: {lies}")
    return {
        "broker": broker_name(index),
        "kind": str(kind),
        "consumer": {name: refusal[name] for name in ("field", "error") if name in refusal},
        "brokers": lies,
        "failures": failures,
    }


def _ask_until_refused(
    folder: RunFolder, url: str, parts: Sequence[tuple[str, int]], span: tuple[int, int]
) -> Mapping[str, Any]:
    """The first refusal's document; of the last answer where nothing is refused."""
    said: Mapping[str, Any] = {}
    for stream, partition in parts:
        said = _query(folder, url, stream, partition, span)
        if said.get("verdict") == "refused":
            return said
    return {"error": str(said.get("error", "nothing"))}


def _query(folder: RunFolder, url: str, stream: str, partition: int, span: tuple[int, int]) -> Mapping[str, Any]:
    words = [sys.executable, "-m", "logstore.cli", "query", stream, "--partition", str(partition)]
    words += ["--from", str(span[0]), "--to", str(span[1]), "--broker", url, "--json", "--format", "raw"]
    words += ["--output", str(folder.path / "tmp" / "answer.cbor"), "--network", str(folder.path / "network.toml")]
    words += ["--key", str(folder.path / "keys" / f"{validator_name(0)}.query")]
    words += ["--cache", str(folder.path / "tmp" / "cache")]
    with (folder.logs / "liar-check.log").open("ab") as sink:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            cwd=ROOT,
            env=child_environment(folder),
            timeout=QUERY_LIMIT_S,
            check=False,
        )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {"error": f"logstore ended with status {done.returncode}"}
    return said if isinstance(said, dict) else {}


def _wait_for_lies(operators: Mapping[str, str], liar: str, lie: str) -> dict[str, dict[str, int]]:
    """What each broker has caught the liar at, as soon as one of them has the lie that is looked for."""
    end = time.monotonic() + REPAIR_LIMIT_S
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while True:
            found = {name: _fetch_lies(client, url, liar) for name, url in operators.items()}
            if any(lie in counts for counts in found.values()) or time.monotonic() > end:
                return found
            time.sleep(PAUSE_S)


def _fetch_lies(client: httpx.Client, operator_url: str, liar: str) -> dict[str, int]:
    try:
        status = client.get(f"{operator_url}/status.json").json()
    except (httpx.HTTPError, ValueError):
        return {}
    others = read_field(status, "others", dict, {})
    lies = read_field(others.get(liar), "lies", dict, {})
    return {str(lie): read_field(lies, lie, int, 0) for lie in lies}
