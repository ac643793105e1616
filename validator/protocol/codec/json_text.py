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
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

MAX_DEPTH = 64
_LONGEST_DOUBLE = 309
"""Digits of the largest one."""

_scan = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads a text of JSON to its end, and makes nothing of it."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NUMBER = re.compile(rb"[0-9][0-9.eE+-]*+")
_LEVELS = bytes.maketrans(b"{}", b"[]")
_END = b"\0"
"""Stands in no text of JSON."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_OPENERS = bytes(set(range(256)) - set(b"[{" + _END))
_OUTLINE = bytes(
    ord("0" if byte in b"0123456789" else "e" if byte in b"eE" else " " if byte in b",]} \t\r\n\0" else "x")
    for byte in range(256)
)
"""For a number's outline: digits, exponents, what may follow a number, and the rest."""
_ROUGH = bytes(ord("0" if byte in b"0123456789+" else "e" if byte in b"eE" else "x") for byte in range(256))
"""The same in one pass that only replaces, for a first look: a sign for a digit, and no negative exponent, which cannot
overflow."""
_MANY_DIGITS = b"0" * (_LONGEST_DOUBLE - 100)
_LONG_EXPONENT = b"0e000"
_EXPONENT = re.compile(rb"0e0000*+ ")


def is_json(content: bytes) -> bool:
    """Whether a content is JSON by the rule above. Linear in its size, whatever it holds."""
    try:
        _scan(content)
    except (msgspec.DecodeError, RecursionError):  # which is hundreds of levels deep
        return False
    if not content.isascii() and not _is_utf8(content):
        return False
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH and not _is_shallow(content):
        return False
    return not _may_overflow(content) or _is_finite(content)


def are_json(contents: Sequence[bytes]) -> bool:
    """Whether all of them are JSON; told at once where none is deep or has large numbers."""
    joined = _END.join(contents)  # no character and no number lies across an end
    openers = joined.translate(None, _NO_OPENERS).split(_END)
    if len(openers) > len(contents) or len(max(openers, key=len)) > MAX_DEPTH:
        return all(map(is_json, contents))
    try:
        deque(map(_scan, contents), maxlen=0)
    except (msgspec.DecodeError, RecursionError):
        return False
    if not joined.isascii() and not _is_utf8(joined):
        return False
    return all(not _may_overflow(content) or _is_finite(content) for content in _find_suspects(joined))


def _find_suspects(joined: bytes) -> Iterator[bytes]:
    """Contents in which at first sight a number may be large: few, and most of these are texts in hex."""
    rough = joined.translate(_ROUGH)
    for pattern in (_LONG_EXPONENT, _MANY_DIGITS):
        at = rough.find(pattern)
        while at >= 0:
            end = joined.find(_END, at)
            end = len(joined) if end < 0 else end
            yield joined[joined.rfind(_END, 0, at) + 1 : end]
            at = rough.find(pattern, end)


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
    """Whether something looks like a number of many digits, or with an exponent of three: nearly nothing does."""
    rough = content.translate(_ROUGH)
    if _LONG_EXPONENT not in rough and _MANY_DIGITS not in rough:
        return False
    outline = (content + _END).translate(_OUTLINE, b"+-")
    return _MANY_DIGITS in outline or (_LONG_EXPONENT in outline and _EXPONENT.search(outline) is not None)


def _is_finite(content: bytes) -> bool:
    return all(math.isfinite(float(number)) for number in _NUMBER.findall(_STRING.sub(b'""', content)))
