"""Which method computes a problem: the list is walked, and every refusal is kept.

Pure: nothing here runs a convolution or sees an array, and no choice that results depend on looks at the batch size, so
that a batch computed in slices has the same bits; but for that of the weight gradient, which sums over the batch.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Final

from ..errors import ConvError
from .geometry import Geometry, conv_geometry
from .methods import METHODS
from .methods.method import Method
from .problem import Direction, Problem, Use
from .problem import problem as problem_here
from .record import NamedTuple
from .types import FLOATS, DType, Types, result_of

WORDS: Final = tuple(dict.fromkeys(("auto", "direct", *(method.word for method in reversed(METHODS)))))
# What variants were called when each was a word of its own: still accepted.
FORMER: Final = {
    old: f"{method.word}:{variant}" for method in METHODS for old, variant in method.former.items()
}


class Choice(NamedTuple):
    """The method that computes a problem, how, and why; and why not each that was asked before."""

    method: Method
    variant: str
    reason: str
    refused: tuple[tuple[str, str], ...]  # (title, sentence)

    @property
    def wish(self) -> str:
        """What to ask for, so that another problem is computed in the same way."""
        return Way(self.method, self.variant).wish


class Way(NamedTuple):
    """A variant of a method."""

    method: Method
    variant: str

    @property
    def wish(self) -> str:
        """What to ask for: the `algorithm=`."""
        return f"{self.method.word}:{self.variant}" if self.variant else self.method.word


WAYS: Final = tuple(Way(method, variant) for method in METHODS for variant in method.variants)


def wishes() -> tuple[str, ...]:
    """Every `algorithm=` that asks for a way of its own: the methods' variants."""
    return tuple(way.wish for way in WAYS)


def asked(wish: str) -> list[tuple[Method, str | None]]:
    """The methods (and variant) that a wish allows, in the order in which they are asked."""
    word, colon, variant = FORMER.get(wish, wish).partition(":")
    if wish == "auto":
        return [(method, None) for method in METHODS]
    named = [method for method in METHODS if method.word == word]
    if colon:
        return [(method, variant) for method in named if variant and variant in method.variants]
    return [(method, None) for method in named]


def choose(p: Problem, shown: Geometry | None = None) -> Choice:
    """The method for a problem; raises `ConvError` where the one that the caller asks for does not apply.

    `shown` is the geometry as the caller knows it, for the message.
    """
    forced, refused = p.wish != "auto", []
    best: Choice | None = None
    least = 1.0
    for method, variant in asked(p.wish):
        if why := method.why_not(p, variant) or _why_not_rounded(method, p):
            if best is None:
                refused.append((method.title, f"{method.title} does not apply: {why}"))
            continue
        if p.empty:
            return Choice(METHODS[-1], "", "nothing to compute", ())
        if forced and (variant or method.word != "direct"):
            able = variant or next(one for one in method.variants if method.why_not(p, one) is None)
            return Choice(method, able, "asked for", tuple(refused))
        offer = method.offer(p)
        if offer.pays and (best is None or offer.share is not None):
            reason = "asked for" if forced else offer.reason or _last_fast(refused)
            if offer.share is None or forced:
                return Choice(method, offer.variant, reason, tuple(refused))
            if best is None or offer.share < least:  # of two that were estimated the faster one
                if best is not None:
                    refused.append((best.method.title, _slower(least, method, offer.share)))
                best, least = Choice(method, offer.variant, reason, tuple(refused)), offer.share
            else:
                refused.append((method.title, _slower(offer.share, best.method, least)))
        elif best is None:
            refused.append((method.title, offer.reason))
    if best is not None:
        return best._replace(refused=tuple(refused))
    g = shown or p.geometry
    raise ConvError(
        f"algorithm={p.wish!r} does not apply to input {(g.batch, g.in_channels, *g.input_size)} with kernel "
        f"{g.kernel_size}: {refused[-1][1].partition(': ')[2]}. Use algorithm='auto' or 'direct'."
    )


def _slower(share: float, other: Method, least: float) -> str:
    return f"would take about {share:.2f} of the plain sums' time, {other.title} {least:.2f}"


def _why_not_rounded(method: Method, p: Problem) -> str | None:
    return "it cannot round its operands to bfloat16" if p.types.rounded and not method.rounds else None


def _last_fast(refused: list[tuple[str, str]]) -> str:
    """Why no fast method, as the last one that was asked says it."""
    fast = {method.title for method in METHODS if method.word != "direct"}
    return next(why for title, why in reversed(refused) if title in fast)


# ---- what others ask of the methods --------------------------------------------------------------------------------


def check(
    g: Geometry, direction: Direction, dtype: DType, wish: str, use: Use = Use.ONCE, types: Types | None = None
) -> None:
    """Refuse a method that the caller asks for and that does not apply to arrays of `dtype`, saying why."""
    if wish not in ("auto", "direct"):
        own = types or Types(dtype, dtype, result_of(dtype))
        choose(problem_here(g, direction, own, use, None, wish), g)


def known(wish: str) -> bool:
    """Whether `algorithm=` may be this."""
    return bool(asked(wish))


def wish_for_scaled() -> str:
    """What to ask for where the input of a pointwise convolution is to be scaled on its way: the plain sums, which copy
    it for that, are worth more than fewer products of what a step apart has made (DenseNet-121: 2 to 4 %)."""
    return METHODS[-1].word


@lru_cache(maxsize=256)
def wish_for_batch(g: Geometry, dtype: DType) -> str:
    """What to ask for in all three passes of a training step, which packs the weights once for its whole batch: 'auto'
    where that changes nothing."""
    for direction in (Direction.WEIGHT_GRADIENT, Direction.FORWARD):
        p = problem_here(g, direction, Types(dtype, dtype, result_of(dtype)), Use.BATCH)
        if p.empty or (chosen := choose(p)).method.word == "direct":
            return "auto"
    return chosen.wish


@lru_cache(maxsize=512)
def wish_for_shapes(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int,
    dtype: DType,
) -> tuple[str, int]:  # fmt: skip
    """The same of a convolution of (N, C, *size) by its arguments, and the outputs of a channel in the batch."""
    g = conv_geometry(input_shape, weight_shape, stride, padding, dilation, groups)
    return wish_for_batch(g, dtype) if dtype in FLOATS else "auto", g.batch * prod(g.output_size)
