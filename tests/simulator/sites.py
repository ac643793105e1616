"""Every place of the core where one small mistake can hide, read from its syntax tree, and the mistake itself.

A *site* is one place with one change: a comparison off by one or turned round, one side of an ``and`` or ``or``
missing, a ``not`` forgotten, a condition turned round, a switch the wrong way, a number one too large, ``min`` for
``max``, an effect or an assignment left out, a field that ``replace``, a constructor of the state or its encoder does
not pass on. ``planted`` compiles the function with the change in it and puts the new code into the function object,
so that whoever imported it before runs it too. Production code knows nothing of this.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from tests.mutants.planting import Unplantable, find_code, find_function, functions_of, running

PACKAGE = "validator.protocol"
MODULES = {
    name.rpartition(".")[2]: f"{PACKAGE}.{name}"
    for name in (
        "quorum",
        "codec.certificate",
        "consensus.boundary",
        "consensus.driver",
        "consensus.evidence",
        "consensus.inputs",
        "consensus.proposal",
        "consensus.reconcile",
        "consensus.round",
        "consensus.state",
        "consensus.views",
        "consensus.votes",
        "consensus.window",
        "consensus.working",
    )
}
"""All that decides anything, by its last name; ``consensus.events`` only names."""

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_KEPT_BY_KEYWORD = frozenset({"replace", "RoundState", "Eligibility"})
"""Calls whose every keyword is a field that would else keep another value."""

LEFT_OUT = "(left out)"
Node = Any
Function = ast.FunctionDef
Change = Callable[[Node], None]


@dataclass(frozen=True, slots=True)
class Site:
    """``function`` is dotted below its class. ``nth``: among equal ones in the function, from 0."""

    module: str
    function: str
    old: str
    new: str
    nth: int = 0

    @property
    def name(self) -> str:
        again = f" ({self.nth + 1})" if self.nth else ""
        return f"{self.module}.{self.function}: {self.old} -> {self.new}{again}"


def find_sites(module: str) -> tuple[Site, ...]:
    """All sites of a module, in the order of the source."""
    return tuple(_changes(module))


@contextmanager
def planted(site: Site) -> Iterator[None]:
    """The core with this one mistake in it. Raises Unplantable."""
    known = _changes(site.module).get(site)
    if known is not None:
        index, change = known
        twin = deepcopy(_functions(site.module)[site.function])
        change(list(ast.walk(twin))[index])
    else:
        twin = _rewritten(site)
    with running(_target(site.module, site.function), _compile(site, twin)):
        yield


# --- source -----------------------------------------------------------------------------------------


@cache
def _functions(module: str) -> dict[str, Function]:
    source = inspect.getsource(importlib.import_module(MODULES[module]))
    found = {name: f for name, f in functions_of(ast.parse(source)).items() if isinstance(f, ast.FunctionDef)}
    for function in found.values():
        _strip(function)
    return found


def _strip(function: Function) -> None:
    """Without what runs only once or not at all: decorators, annotations, defaults' values stay with the original."""
    function.decorator_list = []
    function.returns = None
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:] or [ast.Pass()]
    for node in ast.walk(function):
        if isinstance(node, ast.arguments):
            node.defaults = [ast.Constant(None) for _ in node.defaults]
            node.kw_defaults = [d and ast.Constant(None) for d in node.kw_defaults]
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)


def _rewritten(site: Site) -> Function:
    """The function with one text in place of another, which it must hold exactly once."""
    if site.function not in _functions(site.module):
        raise Unplantable(site.name)
    source = textwrap.dedent(inspect.getsource(_target(site.module, site.function)))
    if source.count(site.old) != 1:
        raise Unplantable(f"{site.name}: the old text is there {source.count(site.old)} times")
    (function,) = ast.parse(source.replace(site.old, site.new)).body
    assert isinstance(function, ast.FunctionDef)
    _strip(function)
    return function


def _target(module: str, name: str) -> FunctionType:
    return find_function(importlib.import_module(MODULES[module]), name)


def _compile(site: Site, function: Function) -> CodeType:
    names = site.function.split(".")
    body: list[ast.stmt] = [function]
    if len(names) == 2:
        body = [ast.ClassDef(name=names[0], bases=[], keywords=[], body=body, decorator_list=[])]
    future = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
    tree = ast.fix_missing_locations(ast.Module([future, *body], []))
    code = compile(tree, f"<{site.name}>", "exec", dont_inherit=True)
    return find_code(code, site.function)


# --- changes ----------------------------------------------------------------------------------------


@cache
def _changes(module: str) -> dict[Site, tuple[int, Change]]:
    """Per site the place of its node in the walk over its function, and what is done to it there."""
    found: dict[Site, tuple[int, Change]] = {}
    for name, function in _functions(module).items():
        rows = []
        for index, node in enumerate(ast.walk(function)):
            for line, old, new, change in _changes_of(node):
                rows.append((line, old, new, index, change))
        seen: dict[tuple[str, str], int] = {}
        for _, old, new, index, change in sorted(rows, key=lambda row: row[0]):
            nth = seen.get((old, new), 0)
            seen[old, new] = nth + 1
            found[Site(module, name, old, new, nth)] = (index, change)
    return found


def _changes_of(node: Node) -> Iterator[tuple[tuple[int, int], str, str, Change]]:
    """(line and column, old text, new text, change) of each mistake that this node admits."""
    for at, change in _changes_at(node):
        twin = deepcopy(node)
        change(twin)
        old, new = _difference(node, twin)
        yield (at.lineno, at.col_offset), old, new, change


def _difference(node: Node, twin: Node) -> tuple[str, str]:
    """The smallest statement or expression that shows the change."""
    if isinstance(node, ast.Call) and len(twin.keywords) < len(node.keywords):
        left = {keyword.arg for keyword in twin.keywords}
        return next(ast.unparse(keyword) for keyword in node.keywords if keyword.arg not in left), LEFT_OUT
    for field in ("body", "orelse", "finalbody") if isinstance(node, ast.stmt) else ("values",):
        parts = getattr(node, field, None)
        for one, other in zip(parts, getattr(twin, field), strict=True) if isinstance(parts, list) else ():
            if ast.dump(one) != ast.dump(other):
                return ast.unparse(one), LEFT_OUT if isinstance(other, ast.Pass) else ast.unparse(other)
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}", f"if {ast.unparse(twin.test)}"
    return ast.unparse(node), ast.unparse(twin)


def _changes_at(node: Node) -> Iterator[tuple[Node, Change]]:
    """(where, change). Each change works on a copy of the node as it does on the node."""
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            yield node.comparators[k], _compare(k, _FLIPPED[type(op)])
    elif isinstance(node, ast.BoolOp):
        for k, value in enumerate(node.values):
            yield value, _drop_side(k, isinstance(node.op, ast.And))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, _negate("operand")
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, _set("value", not node.value)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield node.right, _set("op", ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
    elif isinstance(node, ast.Call):
        yield from _changes_of_call(node)
    if isinstance(node, ast.BinOp) or (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq)):
        for field, at, number in _numbers(node):
            yield number, _one_more(field, at)
    if isinstance(node, ast.If | ast.While | ast.IfExp) and _is_plain(node.test):
        yield node.test, _negate("test")
    if isinstance(node, ast.comprehension):
        for k, test in enumerate(node.ifs):
            if _is_plain(test):
                yield test, _negate("ifs", k)
    for field in ("body", "orelse", "finalbody"):
        lines = getattr(node, field, None)
        if isinstance(lines, list):
            for k, line in enumerate(lines):
                if _can_be_left_out(line):
                    yield line, _leave_out(field, k)


def _changes_of_call(node: ast.Call) -> Iterator[tuple[Node, Change]]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in _SWAPPED:
        yield node, _rename(_SWAPPED[name])
    if name in _KEPT_BY_KEYWORD:
        for k, keyword in enumerate(node.keywords):
            yield keyword, _drop_keyword(k)


def _numbers(node: Node) -> Iterator[tuple[str, int | None, ast.Constant]]:
    parts: list[tuple[str, int | None, Node]]
    if isinstance(node, ast.BinOp):
        parts = [("left", None, node.left), ("right", None, node.right)]
    else:
        parts = [("left", None, node.left), *(("comparators", k, c) for k, c in enumerate(node.comparators))]
    for field, k, part in parts:
        if isinstance(part, ast.Constant) and type(part.value) is int:
            yield field, k, part


def _is_plain(test: Node) -> bool:
    """A condition that no other change touches."""
    inner = test.operand if isinstance(test, ast.UnaryOp) else test
    return not isinstance(test, ast.UnaryOp) and not isinstance(inner, ast.Compare | ast.BoolOp | ast.Constant)


def _can_be_left_out(line: Node) -> bool:
    if isinstance(line, ast.Expr):
        return isinstance(line.value, ast.Call | ast.Yield)
    if isinstance(line, ast.Assign):
        return all(isinstance(t, ast.Attribute | ast.Subscript) for t in line.targets)
    return isinstance(line, ast.AugAssign | ast.Raise | ast.Continue)


def _compare(k: int, op: type[ast.cmpop]) -> Change:
    def change(node: Node) -> None:
        node.ops[k] = op()

    return change


def _drop_side(k: int, joined: bool) -> Change:
    def change(node: Node) -> None:
        node.values[k] = ast.Constant(joined)

    return change


def _negate(field: str, k: int | None = None) -> Change:
    def change(node: Node) -> None:
        old = getattr(node, field)
        if k is None:
            setattr(node, field, ast.UnaryOp(ast.Not(), old))
        else:
            old[k] = ast.UnaryOp(ast.Not(), old[k])

    return change


def _set(field: str, value: object) -> Change:
    def change(node: Node) -> None:
        setattr(node, field, value)

    return change


def _one_more(field: str, k: int | None) -> Change:
    def change(node: Node) -> None:
        old = getattr(node, field)
        constant = old if k is None else old[k]
        constant.value += 1

    return change


def _rename(name: str) -> Change:
    def change(node: Node) -> None:
        node.func = ast.Name(name, ast.Load())

    return change


def _drop_keyword(k: int) -> Change:
    def change(node: Node) -> None:
        del node.keywords[k]

    return change


def _leave_out(field: str, k: int) -> Change:
    def change(node: Node) -> None:
        getattr(node, field)[k] = ast.Pass()

    return change
