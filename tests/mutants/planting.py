"""One mistake in the source of one function, planted into the function object that everybody has imported already.

Two tables are planted so: texts of the shell (``shell``), and the mistakes that the syntax tree of the core admits
(``tests.simulator.sites``).
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """``old`` stands exactly once in the module, inside a function or method; ``claim`` is what ``new`` breaks.

    ``test``: node id, from the root of the project, of a test (or of all cases of one) that fails with it.
    """

    module: str
    old: str
    new: str
    claim: str
    test: str


class Unplantable(LookupError):
    """The table has rotted: the old text is not there, or not once, or in no function, or the new one is no code."""


def locate(mutant: Mutant) -> str:
    """The dotted name, inside its module, of the function that holds the old text. Raises Unplantable."""
    source = _source(_module(mutant))
    count = source.count(mutant.old)
    if count != 1:
        raise Unplantable(f"{mutant.module}: {mutant.old!r} is there {count} times")
    line = source[: source.index(mutant.old)].count("\n") + 1
    if mutant.old.startswith("\n"):
        line += 1
    for name, function in functions_of(ast.parse(source)).items():
        first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        if first <= line <= (function.end_lineno or line):
            return name
    raise Unplantable(f"{mutant.module}: {mutant.old!r} stands in no function")


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The project with this one mistake in it. Raises Unplantable."""
    module, name = _module(mutant), locate(mutant)
    code = _compile(module, _source(module).replace(mutant.old, mutant.new), name, mutant)
    with running(find_function(module, name), code):
        yield


@contextmanager
def running(function: FunctionType, code: CodeType) -> Iterator[None]:
    """Whoever has imported the function runs this code instead."""
    original = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = original


def check(mutant: Mutant) -> None:
    """Raises Unplantable unless it can be planted as the source is now, and changes something."""
    module, name = _module(mutant), locate(mutant)
    code = _compile(module, _source(module).replace(mutant.old, mutant.new), name, mutant)
    if _same(code, find_function(module, name).__code__):
        raise Unplantable(f"{mutant.module}.{name}: the new text changes nothing")


def _module(mutant: Mutant) -> ModuleType:
    return importlib.import_module(mutant.module)


@cache
def _source(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def functions_of(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods by dotted name; what is defined inside them belongs to them."""
    found: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            members = (m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef))
            found.update({f"{node.name}.{member.name}": member for member in members})
    return found


def find_function(module: ModuleType, name: str) -> FunctionType:
    """The function object behind a dotted name, whatever wraps it. Raises Unplantable."""
    owner: Any = module
    for part in name.split("."):
        owner = inspect.getattr_static(owner, part)
    if isinstance(owner, property):
        owner = owner.fget
    elif isinstance(owner, classmethod | staticmethod):
        owner = owner.__func__
    found = inspect.unwrap(owner)
    if not isinstance(found, FunctionType):
        raise Unplantable(f"{module.__name__}.{name} is no function")
    return found


def _compile(module: ModuleType, source: str, name: str, mutant: Mutant) -> CodeType:
    try:
        code = compile(source, module.__file__ or "", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Unplantable(f"{mutant.module}.{name}: {mutant.new!r} is no code: {error}") from error
    return find_code(code, name)


def find_code(code: CodeType, name: str) -> CodeType:
    """The code of a function inside a compiled module."""
    for part in name.split("."):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == part)
    return code


def _same(one: CodeType, other: CodeType) -> bool:
    constants = zip(one.co_consts, other.co_consts, strict=False)
    return (
        one.co_code == other.co_code
        and one.co_names == other.co_names
        and len(one.co_consts) == len(other.co_consts)
        and all(_same(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else a == b for a, b in constants)
    )
