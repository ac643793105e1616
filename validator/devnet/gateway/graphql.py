"""As much GraphQL as look-ups on Arweave gateways use: one query, arguments, variables, nested fields.

No fragments, directives or mutations. ``parse`` gives the selected fields, ``project`` picks them from plain data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_QUERY_CHARACTERS = 16 * 1024
MAX_DEPTH = 12
_TOKEN = re.compile(r"""[\s,]+|\#[^\n]*|(?P<token>"(?:[^"\\\n]|\\.)*"|-?\d+|[A-Za-z_]\w*|[{}()\[\]:$!=])""")


class QueryError(ValueError):
    """The query is outside of what is understood here."""


@dataclass(frozen=True, slots=True)
class Field:
    """A selected field: the name in the answer, the name in the schema, its arguments, what is selected of it."""

    key: str
    name: str
    arguments: Mapping[str, Any]
    fields: tuple[Field, ...]


def parse(query: str, variables: Mapping[str, Any]) -> tuple[Field, ...]:
    """Fields of the one query in ``query``, variables filled in. Raises QueryError."""
    if len(query) > MAX_QUERY_CHARACTERS:
        raise QueryError("the query is too long")
    return _Parser(_split(query), variables).parse_query()


def _split(query: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(query):
        match = _TOKEN.match(query, position)
        if match is None:
            raise QueryError(f"unexpected character at {position}")
        if match["token"] is not None:
            tokens.append(match["token"])
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str], variables: Mapping[str, Any]) -> None:
        self.tokens = [*tokens, ""]
        self.variables = variables
        self.declared: set[str] = set()
        self.at = 0

    def read(self, expected: str | None = None) -> str:
        token = self.tokens[self.at]
        if token == "" or (expected is not None and token != expected):
            raise QueryError(f"expected {expected or 'more'} at token {self.at}, found {token or 'the end'}")
        self.at += 1
        return token

    def peek(self) -> str:
        return self.tokens[self.at]

    def parse_query(self) -> tuple[Field, ...]:
        if self.peek() == "query":
            self.read()
            if self.peek().isidentifier():
                self.read()
            if self.peek() == "(":
                self.parse_declarations()
        fields = self.parse_selection(0)
        if self.peek():
            raise QueryError("one query only")
        return fields

    def parse_declarations(self) -> None:
        """Names of variables; of their types only whether one must be given is looked at."""
        self.read("(")
        while self.peek() != ")":
            self.read("$")
            name = self.read()
            self.read(":")
            word = ""
            while self.peek() not in ("$", ")"):
                word = self.read()
            if word == "!" and self.variables.get(name) is None:
                raise QueryError(f"variable ${name} is required")
            self.declared.add(name)
        self.read(")")

    def parse_selection(self, depth: int) -> tuple[Field, ...]:
        if depth > MAX_DEPTH:
            raise QueryError("nested too deeply")
        self.read("{")
        fields: list[Field] = []
        while self.peek() != "}":
            fields.append(self.parse_field(depth))
        self.read("}")
        return tuple(fields)

    def parse_field(self, depth: int) -> Field:
        key = name = self.read()
        if not name.isidentifier():
            raise QueryError(f"{name} is no field")
        if self.peek() == ":":
            self.read()
            name = self.read()
        arguments = self.parse_pairs("(", ")", depth) if self.peek() == "(" else {}
        fields = self.parse_selection(depth + 1) if self.peek() == "{" else ()
        return Field(key, name, arguments, fields)

    def parse_pairs(self, opening: str, closing: str, depth: int) -> dict[str, Any]:
        self.read(opening)
        pairs: dict[str, Any] = {}
        while self.peek() != closing:
            name = self.read()
            self.read(":")
            pairs[name] = self.parse_value(depth + 1)
        self.read(closing)
        return pairs

    def parse_value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise QueryError("nested too deeply")
        word = self.peek()
        if word == "{":
            return self.parse_pairs("{", "}", depth)
        self.read()
        if word == "[":
            values: list[Any] = []
            while self.peek() != "]":
                values.append(self.parse_value(depth + 1))
            self.read("]")
            return values
        if word == "$":
            name = self.read()
            if name not in self.declared:
                raise QueryError(f"variable ${name} is not declared")
            return self.variables.get(name)
        if word[0] == '"' or word.lstrip("-").isdigit() or word in ("true", "false", "null"):
            return json.loads(word)
        return word  # a name of an enumeration


def project(value: Any, fields: tuple[Field, ...]) -> Any:
    """What ``fields`` select of plain data. Raises QueryError for a name that is not there."""
    if not fields or value is None:
        return value
    if isinstance(value, list):
        return [project(element, fields) for element in value]
    unknown = [f.name for f in fields if f.name not in value]
    if unknown:
        raise QueryError(f"no field {unknown[0]}")
    return {f.key: project(value[f.name], f.fields) for f in fields}
