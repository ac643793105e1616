"""Which contents are JSON: those that every reader of a bundle's ``content`` column can parse.

DuckDB, hyparquet and fastparquet parse a whole column of Parquet's JSON type while they read it, and end the query at
the first value that is none: one stranger's text among a million would take the column from everybody. So the rule is
what all of them accept, and what no version of one library decides:

- RFC 8259, in UTF-8, without a byte order mark;
- an escaped surrogate is half of a pair (RFC 7493; DuckDB refuses others);
- every number, read as a double, is finite (RFC 7493; some parsers refuse others);
- arrays and objects lie in each other at most ``MAX_DEPTH`` deep.

Names may come twice, and numbers may have more digits than a double: parsers read those, each in its way.
"""

from __future__ import annotations

import math
import re

import msgspec

MAX_DEPTH = 64
_SHORT = 2 * MAX_DEPTH
"""No text of so many bytes is deeper: each level has its two brackets."""
_LONGEST_DOUBLE = 309
"""Digits of the largest one."""

_scan = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads a text of JSON to its end, and makes nothing of it."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NUMBER = re.compile(rb"[0-9][0-9.eE+-]*+")
_LEVELS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DIGITS = bytes(
    ord("0") if chr(byte) in "0123456789" else ord("e") if chr(byte) in "eE" else ord(" ") for byte in range(256)
)
_MANY_DIGITS = b"0" * (_LONGEST_DOUBLE - 100)


def is_json(content: bytes) -> bool:
    """Whether a content is JSON by the rule above. Linear in its size, whatever it holds."""
    try:
        _scan(content)
    except (msgspec.DecodeError, RecursionError):  # which is hundreds of levels deep
        return False
    if not content.isascii() and not _is_utf8(content):
        return False
    if len(content) > _SHORT and content.count(b"[") + content.count(b"{") > MAX_DEPTH and not _is_shallow(content):
        return False
    return not _may_overflow(content) or _is_finite(content)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_shallow(content: bytes) -> bool:
    """Whether brackets outside strings are at most ``MAX_DEPTH`` deep: each turn takes the innermost."""
    levels = _STRING.sub(b"", content).translate(_LEVELS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        levels = levels.replace(b"[]", b"")
    return not levels


def _may_overflow(content: bytes) -> bool:
    """False for nearly all: without an exponent of three digits or a long run of digits no number overflows."""
    digits = content.translate(_DIGITS, b"+-")
    return b"e000" in digits or _MANY_DIGITS in digits


def _is_finite(content: bytes) -> bool:
    return all(math.isfinite(float(number)) for number in _NUMBER.findall(_STRING.sub(b'""', content)))
