"""Files of vectors in sections: read, judged case by case, and told as a table.

A file is one JSON object that names its ``schema``. Each of its lists and objects belongs to a section that is judged,
or to the few that others are judged with; one that nobody judges is a difference, so that nothing passes unseen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec.arweave_text import decode_base64url
from validator.protocol.errors import ValidatorError

AGREED, DIFFERED, USAGE = 0, 1, 2
MAX_BYTES = 1 << 26

Case = Any
"""One entry of a section: mostly an object with a name."""


@dataclass(frozen=True, slots=True)
class Section:
    """How one section is judged: what is compared, in words for the table, and what differs of a case."""

    what: str
    find_differences: Callable[[Case], Iterator[str]]


Judges = Callable[[Mapping[str, Any]], Mapping[str, Section]]
"""The sections of a file; some are judged with the help of others."""


@cache
def _load(*jwk: tuple[str, str]) -> ArweaveWallet:
    return ArweaveWallet.from_jwk(dict(jwk))


def load_wallet(jwk: Mapping[str, str]) -> ArweaveWallet:
    """The wallet of a key; it takes 0.3 s, once. Raises MalformedInput."""
    return _load(*jwk.items())


def b64(text: object) -> bytes:
    """Bytes of a vector."""
    return decode_base64url(text, "vector", max_bytes=MAX_BYTES)


def bytes_of(spec: Mapping[str, Any]) -> bytes:
    """The bytes that a vector describes by a text or by a rule: byte[i] = (i * mul + add) mod ``mod``."""
    if "text" in spec:
        return str(spec["text"]).encode()
    size: int = spec["size"]
    period = bytes((i * spec["mul"] + spec["add"]) % spec["mod"] for i in range(spec["mod"]))
    return (period * (size // len(period) + 1))[:size]


def cases_of(vectors: Mapping[str, Any], section: str) -> list[tuple[str, Case]]:
    """The cases of a section with their names; an object that is no list is one case."""
    value = vectors[section]
    listed = value if isinstance(value, list) else [value]
    return [(_name_of(case, number), case) for number, case in enumerate(listed)]


def _name_of(case: Case, number: int) -> str:
    return str(case["name"]) if isinstance(case, dict) and "name" in case else str(number)


def find_difference(section: Section, case: Case) -> str | None:
    """What of one case we see otherwise first; None where we agree."""
    try:
        return next(section.find_differences(case), None)
    except ValidatorError as refusal:
        return f"refused: {refusal}"
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return f"not of the schema: {error!r}"


def read_vectors(arguments: list[str], usage: str) -> Any:
    """The JSON of the one file that is named; None, and why on standard error, where there is none."""
    if len(arguments) != 1:
        print(f"usage: python -m tests.conformance {usage}", file=sys.stderr)
        return None
    try:
        return json.loads(Path(arguments[0]).read_bytes())
    except (OSError, ValueError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return None


def judge(arguments: list[str], subject: str, schema: str, judges: Judges, used: Collection[str]) -> int:
    """Judge a file, print what was compared, and end at the first difference. ``used``: sections that are no cases."""
    vectors = read_vectors(arguments, f"{subject} FILE")
    if vectors is None:
        return USAGE
    if not isinstance(vectors, dict) or vectors.get("schema") != schema:
        print(f"{arguments[0]}: not of the schema {schema}", file=sys.stderr)
        return USAGE
    sections = judges(vectors)
    strange = [
        name
        for name, value in vectors.items()
        if isinstance(value, list | dict) and name not in sections and name not in used
    ]
    missing = [name for name in sections if name not in vectors]
    if strange or missing:
        print(f"sections not judged: {strange}, sections not there: {missing}")
        return DIFFERED
    agreed = 0
    for name, section in sections.items():
        cases = cases_of(vectors, name)
        for label, case in cases:
            difference = find_difference(section, case)
            if difference is not None:
                print(f"{name}/{label}: {difference}")
                return DIFFERED
        agreed += len(cases)
        print(f"{name:<22} {len(cases):>4}  {section.what}")
    print(f"{agreed} of {agreed} agree")
    return AGREED if agreed else DIFFERED
