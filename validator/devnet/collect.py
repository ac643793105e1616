"""Asking the operator listeners: how far validators are while the network runs, and at its end what the check needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from validator.devnet.progress import read_field, read_items
from validator.protocol.codec.statement import SigningContext, decode_statement, verify_statement
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.hashing import hash_object
from validator.protocol.model import StatementKind

MAX_ANSWER_BYTES = 32 << 20
ASK_S = 5.0
LOOKED_AT = 32
"""Windows asked for while the network runs; unfinished older ones are shown anyway."""
TRIES = 4


class Operators:
    """The operator listeners of all validators: name to base URL."""

    def __init__(self, urls: Mapping[str, str], windows: int) -> None:
        self._urls = dict(urls)
        self._limit = windows
        self._client = httpx.Client(timeout=ASK_S, trust_env=False)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ask")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def fetch_statuses(self, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Newest part of the status of each validator that answers; who does not is left out."""
        answers = list(self._pool.map(self._try_status, names))
        return {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}

    def fetch_unready(self, names: Sequence[str]) -> dict[str, str]:
        """Validators that are not ready yet, and the first reason."""
        answers = self._pool.map(self._try_ready, names)
        return {name: reason for name, reason in zip(names, answers, strict=True) if reason}

    def fetch_status(self, name: str) -> Mapping[str, Any]:
        """One validator's status. Raises TransientError (no answer) or RemoteFault (not what was asked for)."""
        return self._fetch(name, "/status.json", {"limit": str(self._limit)})

    def fetch_votes(self, name: str, start_ms: int) -> list[str]:
        """Own statements of a validator about a window, canonical bytes in hex."""
        answer = self._fetch(name, "/statements.json", {"instance": f"window:{start_ms}"})
        return [text for text in read_field(answer, "statements", list, []) if isinstance(text, str)]

    def fetch_observations(self, name: str, instance: str) -> Mapping[str, Any]:
        """Observations that the decided outcome used, as one validator keeps them."""
        return self._ask_once(name, "/observations.json", {"instance": instance})

    def _ask_once(self, name: str, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        try:
            return self._ask(name, path, parameters)
        except httpx.HTTPError as error:
            raise TransientError(f"{name} does not answer {path}: {type(error).__name__}") from error

    def _fetch(self, name: str, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        failure: Exception | None = None
        for _ in range(TRIES):
            try:
                return self._ask(name, path, parameters)
            except (httpx.HTTPError, TransientError) as error:
                failure = error
        raise TransientError(f"{name} does not answer {path}: {type(failure).__name__}") from failure

    def _ask(self, name: str, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        with self._client.stream("GET", self._urls[name] + path, params=dict(parameters)) as answer:
            body = bytearray()
            for piece in answer.iter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise RemoteFault(f"{name}: {path} is larger than {MAX_ANSWER_BYTES} bytes")
        if answer.status_code != 200:
            raise TransientError(f"{name}: {path} answers {answer.status_code}")
        try:
            data = json.loads(body)
        except ValueError as error:
            raise RemoteFault(f"{name}: {path} is not JSON") from error
        if not isinstance(data, dict):
            raise RemoteFault(f"{name}: {path} is no JSON object")
        return data

    def _try_status(self, name: str) -> Mapping[str, Any] | None:
        try:
            return self._ask(name, "/status.json", {"limit": str(min(self._limit, LOOKED_AT))})
        except (httpx.HTTPError, TransientError):
            return None

    def _try_ready(self, name: str) -> str:
        try:
            answer = self._client.get(self._urls[name] + "/readyz")
            checks = read_items(answer.json(), "checks")
        except (httpx.HTTPError, ValueError):
            return "does not answer yet"
        failed = [
            f"{read_field(c, 'name', str, '?')}: {read_field(c, 'detail', str, '')}"
            for c in checks
            if c.get("ok") is not True
        ]
        return "" if answer.status_code == 200 else (failed or ["not ready"])[0]


class Observations:
    """Observations that outcomes used, fetched while validators keep them: outcomes name them by digest only.

    An instance is asked for once a validator shows its certificate, one validator after the other, until all that its
    outcome names are here. Each is kept only with a statement that its named signer has signed for these very bytes, so
    no validator can forge another's; one that leaves some out only makes the check fail.
    """

    def __init__(self, operators: Operators, signing: SigningContext) -> None:
        self._operators = operators
        self._signing = signing
        self._held: dict[tuple[str, str], str] = {}
        """Statement by (digest of the body, statement's signer); of no other statement anything follows."""
        self._bodies: dict[str, str] = {}
        self._complete: set[str] = set()

    def look(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """Ask for what is decided by now and not all here yet. Who does not answer is asked again at the next look."""
        for instance, names in _decided(statuses).items():
            for name in names if instance not in self._complete else ():
                try:
                    answer = self._operators.fetch_observations(name, instance)
                except (TransientError, RemoteFault):
                    continue
                if self._take(answer):
                    self._complete.add(instance)
                    break

    def write(self, path: Path) -> None:
        """observations.jsonl. Raises OSError."""
        lines = [
            json.dumps({"statement": statement, "body": self._bodies[digest]})
            for (digest, _), statement in self._held.items()
        ]
        path.write_text("".join(line + "\n" for line in lines))

    def _take(self, answer: Mapping[str, Any]) -> bool:
        """Keep what is genuine; whether all is here that the outcome names."""
        for item in read_items(answer, "observations"):
            statement, body = read_field(item, "statement", str, ""), read_field(item, "body", str, "")
            try:
                said = decode_statement(bytes.fromhex(statement))
                digest = hash_object(bytes.fromhex(body))
                if said.kind is not StatementKind.OBSERVATION or said.value != digest:
                    continue
                verify_statement(said, self._signing)
            except (MalformedInput, ValueError):
                continue
            self._held[digest.hex(), said.signer.hex()] = statement
            self._bodies[digest.hex()] = body
        named = read_field(answer, "used", list, [])
        return read_field(answer, "decided", bool, False) and all(digest in self._bodies for digest in named)


def _decided(statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Who shows a certificate of which instance."""
    names: dict[str, list[str]] = {}
    for name, status in statuses.items():
        for certificate in read_items(status, "certificates"):
            names.setdefault(read_field(certificate, "instance", str, ""), []).append(name)
    return names


def write_collected(
    path: Path,
    operators: Operators,
    names: Sequence[str],
    *,
    killed: Mapping[str, Any] | None,
    votes: Mapping[str, Any],
    brokers_away: Sequence[Mapping[str, Any]] = (),
    chain_away: Sequence[Mapping[str, Any]] = (),
) -> dict[str, dict[str, int]]:
    """collected.json: refused records per validator, the killed one with its certificates and votes,
    and when a broker or the chain was away.

    Returns the refused records. Raises TransientError, RemoteFault: a validator does not say.
    """
    rejected: dict[str, dict[str, int]] = {}
    certificates: dict[str, list[str]] = {}
    for name in names:
        status = operators.fetch_status(name)
        counts = read_field(status, "invalid_rejected", dict, {})
        rejected[name] = {reason: read_field(counts, reason, int, 0) for reason in sorted(counts)}
        certificates[name] = [read_field(c, "instance", str, "") for c in read_items(status, "certificates")]
    told = None if killed is None else {**killed, "certificates": certificates[killed["validator"]]}
    collected = {
        "invalid_rejected": rejected,
        "killed": told,
        "statements": votes,
        "brokers_away": list(brokers_away),
        "chain_away": list(chain_away),
    }
    path.write_text(json.dumps(collected, indent=1))
    return rejected
