"""Many secp256k1 signatures checked by one equation, for who reads thousands: under half of recovery's cost.

A recoverable signature (r, s, v) of digest m names a point R: r is its x, v says which of the two. It recovers to the
key Q if and only if R = (m/s) G + (r/s) Q. Where Q is known (recovered once per publisher), so many of these are true
together, but for one chance in 2^132, if

    sum a_i R_i = (sum a_i m_i/s_i) G + sum over keys (sum a_i r_i/s_i) Q

holds for numbers a_i that nobody could know when he made the signatures: they are drawn from a hash over all of them.
Unlike a check against the known key alone, this sees v, and takes a high s as recovery does. Where the sum does not
hold, or anything is unusual, each signature is recovered (``recovery``), so no signature is ever refused by the sum.
One who forges makes us do both: a reader stops at the first forgery, a broker bounds how often (``batch_verifier``),
validators recover all.

The left side is Pippenger's: digits of six bits put each R into one of 64 heaps, once for each of 22 digits; a heap is
one call of libsecp256k1, which adds up points at 0.3 us each. Its public functions are enough for that.

Decided against (docs/decisions): the equation for validators, verification against the known key (0032).
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from coincurve._libsecp256k1 import ffi, lib

from validator.protocol.codec.recovery import KeyStruct, Signed, check_recovered
from validator.protocol.codec.secp256k1 import CURVE_ORDER
from validator.protocol.hashing import draw_bytes, sha256

MIN_TOGETHER = 160
"""With fewer the heaps cost more than they save."""
MIN_PER_KEY = 2
"""A key's own multiplication costs as much as a recovery."""
DIGITS = 22
BASE = 64
_SIX_BITS = bytes(byte & 63 for byte in range(256))
_PREFIX = {27: b"\x02", 28: b"\x03"}
_CONTEXT = lib.secp256k1_context_static
_SIZE = ffi.sizeof("secp256k1_pubkey")
_LOW, _HIGH = bytes(32), CURVE_ORDER.to_bytes(32, "big")


class _CancelsOut(Exception):
    """A sum is no point: it happens to nobody who signs honestly."""


def check_together(signed: Sequence[Signed], keys: dict[bytes, KeyStruct]) -> list[bool | None]:
    """What ``check_recovered`` says of each; ``keys`` are those of earlier batches, and learns."""
    return check_and_tell(signed, keys)[0]


def check_and_tell(
    signed: Sequence[Signed], keys: dict[bytes, KeyStruct], apart: Collection[bytes] = ()
) -> tuple[list[bool | None], bool | None]:
    """The same, and whether the equation was true; None: it was not tried. Publishers ``apart`` are recovered."""
    is_true: bool | None = None
    verdicts: list[bool | None] = [None] * len(signed)
    by_publisher: dict[bytes, list[int]] = {}
    alone: list[int] = []
    for number, (signature, _, address) in enumerate(signed):
        group = by_publisher.setdefault(address, [])
        in_range = _is_in_range(signature)
        if not in_range or (not group and address not in keys):
            alone.append(number)
        if in_range:
            group.append(number)
    _recover(signed, alone, keys, verdicts)
    together: list[int] = []
    rest: list[int] = []
    for address, group in by_publisher.items():
        left = group if not alone else [number for number in group if verdicts[number] is None]
        can_be_added = address in keys and address not in apart and len(left) >= MIN_PER_KEY
        (together if can_be_added else rest).extend(left)
    if len(together) >= MIN_TOGETHER:
        is_true = is_equation_true([signed[number] for number in together], keys)
    if is_true:
        for number in together:
            verdicts[number] = True
    else:
        rest += together
    _recover(signed, rest, keys, verdicts)
    return verdicts, is_true


def _recover(
    signed: Sequence[Signed], numbers: Sequence[int], keys: dict[bytes, KeyStruct], verdicts: list[bool | None]
) -> None:
    found = check_recovered((signed[number] for number in numbers), keys)
    for number, verdict in zip(numbers, found, strict=True):
        verdicts[number] = verdict


def _is_in_range(signature: bytes) -> bool:
    """65 bytes, 0 < r < n, 0 < s < n, v 27 or 28; of others recovery has the word."""
    return (
        len(signature) == 65
        and signature[64] in _PREFIX
        and _LOW < signature[:32] < _HIGH
        and _LOW < signature[32:64] < _HIGH
    )


def is_equation_true(signed: Sequence[Signed], keys: Mapping[bytes, KeyStruct]) -> bool:
    """Whether all of these, in range and of known keys, are their publishers', by one equation. False: try each."""
    count = len(signed)
    points = ffi.new("secp256k1_pubkey[]", count)
    parse = lib.secp256k1_ec_pubkey_parse
    for number, (signature, _, _) in enumerate(signed):
        if not parse(_CONTEXT, points + number, _PREFIX[signature[64]] + signature[:32], 33):
            return False
    seed = sha256(b"".join([part for item in signed for part in item])).digest()
    digits = draw_bytes(seed, DIGITS * count).translate(_SIX_BITS)
    generator, by_key = _sum_scalars(signed, [int.from_bytes(digits[n::count], "big") for n in range(count)])
    try:
        left = _sum_points(points, [digits[at : at + count] for at in range(0, DIGITS * count, count)])
        right = _sum_products([(_GENERATOR, generator), *((keys[address], n) for address, n in by_key.items())])
    except _CancelsOut:
        return False
    return left == right


def _sum_scalars(signed: Sequence[Signed], factors: Sequence[int]) -> tuple[int, dict[bytes, int]]:
    """Sum of a m/s, and of a r/s for each key. All 1/s come of one inversion, by products of those before."""
    values = [int.from_bytes(signature[32:64], "big") for signature, _, _ in signed]
    products = []
    product = 1
    for value in values:
        products.append(product)
        product = product * value % CURVE_ORDER
    inverse = pow(product, -1, CURVE_ORDER)
    generator = 0
    by_key: dict[bytes, int] = {}
    for (signature, digest, address), factor, before, value in zip(
        reversed(signed), reversed(factors), reversed(products), reversed(values), strict=True
    ):
        weight = before * inverse % CURVE_ORDER * factor % CURVE_ORDER
        inverse = inverse * value % CURVE_ORDER
        generator += weight * int.from_bytes(digest, "big")
        by_key[address] = by_key.get(address, 0) + weight * int.from_bytes(signature[:32], "big")
    return generator % CURVE_ORDER, {address: scalar % CURVE_ORDER for address, scalar in by_key.items()}


def _sum_points(points: Any, digits: Sequence[bytes]) -> KeyStruct:
    """Sum of each point times its number, whose digits stand here, highest first, each in a byte."""
    sums = ffi.new("secp256k1_pubkey[]", BASE)
    first, first_sum = _place(points), _place(sums)
    total: Any = None
    spare = [ffi.new("secp256k1_pubkey *"), ffi.new("secp256k1_pubkey *")]
    for column in digits:
        heaps: list[list[int]] = [[] for _ in range(BASE)]
        for place, digit in zip(range(first, first + len(column) * _SIZE, _SIZE), column, strict=True):
            heaps[digit].append(place)
        filled = [digit for digit in range(1, BASE) if heaps[digit]]
        for digit in filled:
            _combine(sums + digit, heaps[digit])
        for bit in reversed(range(8)):
            places = [first_sum + digit * _SIZE for digit in filled if digit >> bit & 1]
            if total is not None:
                places += [_place(total)] * 2
            if places:
                spare.reverse()
                total = spare[0]
                _combine(total, places)
    if total is None:
        raise _CancelsOut
    return bytes(ffi.buffer(total))


def _sum_products(factors: Iterable[tuple[KeyStruct, int]]) -> KeyStruct:
    """Sum of each key times its number."""
    products = []
    for key, number in factors:
        product = ffi.new("secp256k1_pubkey *", (key,))
        if not lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, product, number.to_bytes(32, "big")):
            raise _CancelsOut
        products.append(product)
    total = ffi.new("secp256k1_pubkey *")
    _combine(total, [_place(product) for product in products])
    return bytes(ffi.buffer(total))


def _combine(out: Any, places: Sequence[int]) -> None:
    """``out``, which is none of them, becomes the sum of the points that lie there."""
    pointers = ffi.from_buffer("secp256k1_pubkey *[]", array("Q", places))
    if not lib.secp256k1_ec_pubkey_combine(_CONTEXT, out, pointers, len(places)):
        raise _CancelsOut


def _place(struct: Any) -> int:
    return int(ffi.cast("uintptr_t", struct))


def _read_point(compressed: bytes) -> KeyStruct:
    point = ffi.new("secp256k1_pubkey *")
    if not lib.secp256k1_ec_pubkey_parse(_CONTEXT, point, compressed, len(compressed)):
        raise AssertionError("the generator is a point")
    return bytes(ffi.buffer(point))


_GENERATOR = _read_point(bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"))
"""SEC 2, section 2.4.1."""
