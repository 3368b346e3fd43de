"""Optimisers and learning-rate schedules with Keras' names, arguments and defaults.

A schedule is anything that can be called with the number of steps done and gives the learning rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import cos, pi, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._core.arguments import Made
from ._core.arrays import as_array
from ._core.words import flag
from .errors import ConvError, ConvTypeError, keras_has
from .layers.base import Parameter, positive, real
from .layers.rows import team

Array = NDArray[Any]
Schedule = Callable[[int], float]


class Optimizer:
    """Moves parameters against their gradients.

    Weight decay is apart from the gradient (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).

    Parameters
    ----------
    learning_rate : float or callable
        The rate, or a function of the steps done, such as a schedule.
    weight_decay : float, optional
        With w, w * learning_rate of every weight is taken off at each step, apart from its gradient.
    """

    def __init__(self, learning_rate: float | Schedule, weight_decay: float | None) -> None:
        if not callable(learning_rate):
            learning_rate = real("learning_rate", learning_rate, 0)
        self.learning_rate = learning_rate
        self.weight_decay = 0.0 if weight_decay is None else real("weight_decay", weight_decay, 0)
        self.iterations = 0
        self._spared: tuple[str, ...] = ()
        self._slots: dict[int, tuple[Parameter, list[Array]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take: the state lies beside its parameters, as their addresses change."""
        return {**self.__dict__, "_slots": list(self._slots.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._slots = {id(slot[0]): slot for slot in state["_slots"]}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} learning_rate={self.learning_rate!r}, {self.iterations:,} steps done>"

    def exclude_from_weight_decay(self, var_names: Sequence[str]) -> None:
        """Spare parameters from weight decay.

        Parameters
        ----------
        var_names : sequence of str
            Parameters whose name holds one of these words, such as ['bias', 'gamma', 'beta'].
        """
        self._spared = tuple(var_names)

    def current_rate(self) -> float:
        """The learning rate of the next step.

        Returns
        -------
        float
            As the schedule gives it.
        """
        rate = self.learning_rate
        return float(rate(self.iterations)) if callable(rate) else rate

    def apply(self, parameters: Sequence[Parameter]) -> None:
        """Make one step with the gradients that the parameters hold.

        Parameters
        ----------
        parameters : sequence of Parameter
            Those without a gradient are left alone.

        Raises
        ------
        ConvError
            For a gradient of another shape than its parameter; nothing has been changed then.
        """
        given = [(p, _gradient(p, p.grad)) for p in parameters if p.grad is not None and p.size > 0]
        rate = self.current_rate()
        self.iterations += 1
        for parameter, grad in given:
            decay = 0.0 if any(word in parameter.name for word in self._spared) else self.weight_decay
            self._update(parameter, grad, rate, decay)

    def slots(self, parameter: Parameter) -> list[Array]:
        """The state that is kept for a parameter.

        Parameters
        ----------
        parameter : Parameter
            One that `apply` has moved, or may move.

        Returns
        -------
        list of ndarray
            As many as the rule keeps, of its shape; none before its first step.
        """
        return self._slots[id(parameter)][1] if id(parameter) in self._slots else []

    def resume(self, iterations: int, slots: Sequence[tuple[Parameter, list[Array]]]) -> None:
        """Go on as after so many steps, with this state of parameters.

        Parameters
        ----------
        iterations : int
            Steps done.
        slots : sequence of (Parameter, list of ndarray)
            As `slots` gave them.
        """
        self.iterations = iterations
        self._slots = {id(parameter): (parameter, list(arrays)) for parameter, arrays in slots}

    def _state(self, parameter: Parameter, count: int) -> list[Array]:
        """`count` arrays of zeros that live as long as the optimiser, for this parameter."""
        found = self._slots.get(id(parameter))
        if found is None:
            found = self._slots[id(parameter)] = (
                parameter, [np.zeros(parameter.shape, parameter.dtype) for _ in range(count)]
            )  # fmt: skip
        return found[1]

    @abstractmethod
    def _update(self, parameter: Parameter, grad: Array, rate: float, decay: float) -> None: ...


def _gradient(parameter: Parameter, grad: object) -> Array:
    """The gradient as an array of the parameter's shape and type: a layer of the user's may have left any other."""
    array = as_array(f"the gradient of {parameter.name}", grad)
    if array.shape != parameter.shape:
        raise ConvError(
            f"the gradient of {parameter.name} must have the shape {parameter.shape} of its weights, but got "
            f"{array.shape}; look at the layer's backward."
        )
    return array.astype(parameter.dtype, copy=False)


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1)


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum * v - rate * g; w += v.

    Parameters
    ----------
    learning_rate : float or callable
        The rate, or a function of the steps done, such as a schedule.
    momentum : float
        Between 0 and 1.
    nesterov : bool
        Look ahead: w += momentum * v - rate * g.
    weight_decay : float, optional
        With w, w * learning_rate of every weight is taken off at each step, apart from its gradient.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = real("momentum", momentum, 0, 1)
        self.nesterov = flag("nesterov", nesterov)

    def _update(self, parameter: Parameter, grad: Array, rate: float, decay: float) -> None:
        w = parameter.updated()
        velocity = _flat(self._state(parameter, 1)[0]) if self.momentum else None
        _native.sgd(
            _flat(w), _flat(grad), velocity, rate, self.momentum, 1 - decay * rate, self.nesterov, team(w)
        )


class Adam(Optimizer):
    """Adam, with Keras' defaults.

    Parameters
    ----------
    learning_rate : float or callable
        The rate, or a function of the steps done, such as a schedule.
    beta_1 : float
        Decay of the mean of the gradient.
    beta_2 : float
        Decay of the mean of its square.
    epsilon : float
        Added to the root of the latter; Keras' default.
    weight_decay : float, optional
        With w, w * learning_rate of every weight is taken off at each step, apart from its gradient.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta_1, self.beta_2 = real("beta_1", beta_1, 0, 1), real("beta_2", beta_2, 0, 1)
        self.epsilon = real("epsilon", epsilon, 0)

    def _update(self, parameter: Parameter, grad: Array, rate: float, decay: float) -> None:
        w = parameter.updated()
        first, second = map(_flat, self._state(parameter, 2))
        t = self.iterations
        corrected = rate * sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t) if t else rate
        _native.adam(
            _flat(w), _flat(grad), first, second, corrected, self.beta_1, self.beta_2, self.epsilon, 1 - decay * rate,
            team(w),
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, with Keras' defaults.

    Parameters
    ----------
    learning_rate : float or callable
        The rate, or a function of the steps done, such as a schedule.
    weight_decay : float, optional
        With w, w * learning_rate of every weight is taken off at each step, apart from its gradient.
    beta_1 : float
        Decay of the mean of the gradient.
    beta_2 : float
        Decay of the mean of its square.
    epsilon : float
        Added to the root of the latter; Keras' default.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay)


OPTIMIZERS: Final[dict[str, Callable[[], Optimizer]]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def optimizer(value: object) -> Optimizer:
    """An optimiser, or the one that a name stands for with its defaults.

    Parameters
    ----------
    value : str or Optimizer
        Such as 'sgd' or `SGD()`.

    Returns
    -------
    Optimizer
        The object itself, or a new one.

    Raises
    ------
    ConvError, ConvTypeError
        For an unknown name, or what is neither.
    """
    if isinstance(value, Optimizer):
        return value
    names, more = ", ".join(map(repr, OPTIMIZERS)), keras_has("optimizers")
    if not isinstance(value, str):
        raise ConvTypeError(f"optimizer must be an optimizer or one of {names}, but got {value!r}; {more}")
    found = OPTIMIZERS.get(value.lower())
    if found is None:
        raise ConvError(f"optimizer must be an optimizer or one of {names}, but got optimizer={value!r}; {more}")
    return found()


# ---- schedules ----------------------------------------------------------------------------------------------------


class _Told(Made):
    """A schedule that says its numbers."""

    def __repr__(self) -> str:
        told = {name: value for name, value in vars(self).items() if name != "_made_with"}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in told.items())})"


class ExponentialDecay(_Told):
    """The rate initial * decay_rate^(step / decay_steps).

    Parameters
    ----------
    initial_learning_rate : float
        The rate at step 0.
    decay_steps : int
        Steps of the decay.
    decay_rate : float
        The factor over `decay_steps`.
    staircase : bool
        Only whole powers.
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial = real("initial_learning_rate", initial_learning_rate, 0)
        self.steps = positive("decay_steps", decay_steps)
        self.rate = real("decay_rate", decay_rate, 0)
        self.staircase = flag("staircase", staircase)

    def __call__(self, step: int) -> float:
        power = step // self.steps if self.staircase else step / self.steps
        return float(self.initial * self.rate**power)


class CosineDecay(_Told):
    """The rate along half a cosine, after a linear warm-up.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at step 0.
    decay_steps : int
        Steps of the decay.
    alpha : float
        Share of the rate that is left at the end.
    warmup_target : float, optional
        The rate at the end of the warm-up.
    warmup_steps : int
        Steps of the warm-up.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Examples
    --------
    >>> from fastconv.optimizers import CosineDecay
    >>> rate = CosineDecay(0.1, decay_steps=10)
    >>> rate(0), rate(5), rate(10)
    (0.1, 0.05, 0.0)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial = real("initial_learning_rate", initial_learning_rate, 0)
        self.steps = positive("decay_steps", decay_steps)
        self.alpha = real("alpha", alpha)
        self.target = None if warmup_target is None else real("warmup_target", warmup_target, 0)
        self.warmup = int(real("warmup_steps", warmup_steps, 0))

    def __call__(self, step: int) -> float:
        peak = self.initial if self.target is None else self.target
        if self.target is not None:
            if step < self.warmup:
                return self.initial + (peak - self.initial) * step / self.warmup
            step -= self.warmup
        fraction = min(step, self.steps) / self.steps
        return peak * ((1 - self.alpha) * 0.5 * (1 + cos(pi * fraction)) + self.alpha)


class PiecewiseConstantDecay(_Told):
    """A rate that changes in steps: values[0] up to boundaries[0], values[1] up to boundaries[1], and so on.

    Parameters
    ----------
    boundaries : sequence of int
        Steps, rising.
    values : sequence of float
        Rates, one more than boundaries.
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        self.boundaries = [int(real("boundaries", boundary, 0)) for boundary in boundaries]
        self.values = [real("values", value, 0) for value in values]
        if len(self.values) != len(self.boundaries) + 1 or self.boundaries != sorted(self.boundaries):
            raise ConvError(
                f"values must hold one rate more than boundaries, which must rise, but got {len(self.values)} values "
                f"and boundaries={list(boundaries)!r}."
            )

    def __call__(self, step: int) -> float:
        return self.values[sum(step > boundary for boundary in self.boundaries)]
