"""What a convolution will do, and why, for people."""

from __future__ import annotations

from math import prod

from .. import _native
from .methods.method import Told
from .problem import Problem
from .record import NamedTuple
from .select import Choice


class ConvExplanation(NamedTuple):
    """What a convolution will do, and why; printed, a few lines of text.

    Parameters
    ----------
    algorithm : str
        'direct', 'winograd', 'fft' or 'strassen', as `algorithm=` takes it.
    isa : str
        The instruction set in use.
    dtype : str
        The element type of input and weight.
    threads : int
        Threads that a call may use.
    tile : (int, int) or (int, int, int)
        Outputs computed together, along each axis.
    block : str
        What a task works through at a time.
    register_tile : (int, int)
        Pixels x output channels held in registers.
    source : str
        Where register tiles read their pixels.
    workspace_bytes : int
        Scratch memory of one call, in bytes.
    packed_weight_bytes : int
        Memory of the packed weights, in bytes.
    macs : int
        Multiply-adds of one call by the definition of convolution.
    multiplications : int
        Multiply-adds left after the fast algorithm.
    reason : str
        Why this algorithm.
    variant : str
        Which form of the algorithm; '' where it has but one. ``f'{algorithm}:{variant}'`` asks for it by name.
    refused : tuple of (str, str)
        The methods that were asked before, and why they do not apply or do not pay.
    weights : str
        What the packed weights are held in, and how they are multiplied.
    """

    algorithm: str
    isa: str
    dtype: str
    threads: int
    tile: tuple[int, ...]
    block: str
    register_tile: tuple[int, int]
    source: str
    workspace_bytes: int
    packed_weight_bytes: int
    macs: int
    multiplications: int
    reason: str
    variant: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    weights: str = ""

    @property
    def kind(self) -> str:
        """Algorithm and variant in a word or two."""
        return f"{self.algorithm} ({self.variant})" if self.variant else self.algorithm

    def __str__(self) -> str:
        asked = "".join(f"\n  not             {why}" for _, why in self.refused)
        return (
            f"{self.kind} convolution, {self.dtype}, {self.isa}, {self.threads} thread(s)\n"
            f"  register tile   {self.register_tile[0]} pixels x {self.register_tile[1]} channels\n"
            f"  output tile     {' x '.join(map(str, self.tile))} pixels, input: {self.source}\n"
            f"  block           {self.block}\n"
            f"  packed weights  {self.packed_weight_bytes:,} bytes{self.weights and ', ' + self.weights}\n"
            f"  workspace       {self.workspace_bytes:,} bytes\n"
            f"  multiply-adds   {self.macs:,}, of which {self.multiplications:,} are done\n"
            f"  why             {self.reason}{asked}"
        )


def explanation(p: Problem, choice: Choice, told: Told, axes: int) -> ConvExplanation:
    """Of a problem of so many axes, what was chosen for it and what the program says."""
    return ConvExplanation(
        algorithm=choice.method.word, isa=p.machine.isa, dtype=str(p.types.input), threads=told.threads,
        tile=told.tile[-axes:], block=told.block, register_tile=told.register_tile, source=told.source,
        workspace_bytes=told.workspace_bytes,
        packed_weight_bytes=told.packed_weight_bytes, macs=p.macs,
        multiplications=told.multiplications if prod(p.size) else 0,
        reason=f"{choice.reason}; {told.remark}" if told.remark else choice.reason, variant=choice.variant,
        refused=choice.refused, weights=_weights(p, choice, told),
    )  # fmt: skip


def _weights(p: Problem, choice: Choice, told: Told) -> str:
    """What is held of weights of 16 bits, and what of operands that are rounded."""
    packed, why = p.types.packed, choice.method.halves
    if not packed:
        return ""
    if why:
        held = f"rounded to {packed} and held in float32: {why}"
    elif told.transforms_held:
        held = f"{packed}, and their transform in float32"
    else:
        held = packed
    if not p.types.rounded:
        return held
    if choice.method.word != "direct" or why:
        return f"{held}; inputs rounded to bfloat16 and multiplied in float32"
    if _native.multiplies_bfloat16():
        return f"{held}; inputs rounded to bfloat16 and multiplied in it"
    return f"{held}; inputs rounded to bfloat16 and multiplied in float32, as {p.machine.isa} has no product of it"

