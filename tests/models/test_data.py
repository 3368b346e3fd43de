"""Where batches come from: the last samples for validation, generators, loaders, steps, and what is said when they "
"end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from nets import two_inputs

from fastconv import ConvError, ConvTypeError, Sequential, layers

X = np.random.default_rng(0).random((23, 4), np.float32)
Y = X.sum(1, keepdims=True)


def net(**options: Any) -> Sequential:
    made = Sequential([layers.Dense(1)], (4,), seed=0)
    made.compile("sgd", "mse")
    return made


def batches(size: int = 6, count: int = 23) -> list[tuple[Any, Any]]:
    return [(X[i : i + size], Y[i : i + size]) for i in range(0, count, size)]


def endless() -> Iterator[tuple[Any, Any]]:
    while True:
        yield from batches()


def alike(one: Sequential, other: Sequential) -> None:
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("share", "learnt"), [(0.25, 17), (0.5, 11), (0.01, 22), (0.99, 0), (1 / 3, 15)])
def test_the_last_samples_are_held_out_before_any_order_is_drawn(share: float, learnt: int) -> None:
    one, other = net(), net()
    if not learnt:
        with pytest.raises(ConvError, match="validation_split"):
            one.fit(X, Y, validation_split=share, verbose=0)
        return
    first = one.fit(X, Y, 5, 2, verbose=0, seed=3, validation_split=share).history
    second = other.fit(X[:learnt], Y[:learnt], 5, 2, (X[learnt:], Y[learnt:]), 0, seed=3).history
    assert first["loss"] == second["loss"] and first["val_loss"] == second["val_loss"]
    alike(one, other)


def test_of_several_inputs_every_one_is_split() -> None:
    made = two_inputs()
    made.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x = {"image": random.random((9, 5, 5, 2)), "numbers": random.random((9, 3))}
    y = random.random((9, 1))
    history = made.fit(x, y, validation_split=0.4, verbose=0, epochs=1).history
    assert {"loss", "val_loss"} <= set(history)
    given = made.fit(x, y, validation_split=0.4, validation_data=(x, y), verbose=0).history  # which counts, as in Keras
    assert given["val_loss"][0] == pytest.approx(made.evaluate(x, y))


class Numbered:
    """As Keras' PyDataset: by number, without an end of its own."""

    ends = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return batches()[number]

    def on_epoch_end(self) -> None:
        self.ends += 1


class Loader:
    """As PyTorch's: new every time."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Any]:
        return iter([list(batch) for batch in batches()])


def test_any_iterable_trains_as_the_arrays_do() -> None:
    wanted = net()
    losses = wanted.fit(X, Y, 6, 2, verbose=0, shuffle=False).history["loss"]
    numbered = Numbered()
    for given, options in (
        (batches(), {}), (Loader(), {}), (numbered, {}), (endless(), {"steps_per_epoch": 4}),
        ((batch for batch in batches() * 2), {"steps_per_epoch": 4}), (Loader(), {"steps_per_epoch": 4}),
        (iter(batches() * 2), {"steps_per_epoch": 4}),
    ):  # fmt: skip
        made = net()
        assert made.fit(given, epochs=2, verbose=0, shuffle=False, **options).history["loss"] == losses  # type: ignore[arg-type]
        alike(made, wanted)
        assert made.evaluate(batches()) == made.evaluate(X, Y, 6)
    assert numbered.ends == 2
    assert net().evaluate(endless(), steps=4) == net().evaluate(X, Y, 6)


def test_steps_of_arrays_go_on_behind_the_last_epoch() -> None:
    made, wanted = net(), net()
    made.fit(X, Y, 6, 3, verbose=0, shuffle=False, steps_per_epoch=2)
    for x, y in [*batches(), *batches()[:2]]:
        wanted.train_on_batch(x, y)
    alike(made, wanted)
    assert made.optimizer.iterations == 6  # type: ignore[union-attr]


def test_validation_by_what_yields() -> None:
    made = net()
    history = made.fit(X, Y, epochs=2, verbose=0, validation_data=Loader()).history
    assert len(history["val_loss"]) == 2
    few = made.fit(X, Y, epochs=2, verbose=0, validation_data=endless(), validation_steps=4).history
    assert len(few["val_loss"]) == 2
    with pytest.raises(ConvError, match="read once"):
        made.fit(X, Y, epochs=2, verbose=0, validation_data=iter(batches()))
    assert made.fit(X, Y, verbose=0, validation_data=iter(batches())).epoch == [0]


def test_the_end_of_a_generator_ends_the_training_with_a_warning() -> None:
    made = net()
    with pytest.warns(RuntimeWarning, match="ran out of batches after 1 of 3 epochs"):
        assert made.fit(iter(batches()), epochs=3, verbose=0).epoch == [0]
    with pytest.warns(RuntimeWarning, match="1 of 3 steps"):
        assert made.fit(iter(batches()), epochs=2, verbose=0, steps_per_epoch=3).epoch == [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.fit(iter(batches()), epochs=2, verbose=0, steps_per_epoch=2)


def test_epochs_are_counted_from_where_a_training_goes_on() -> None:
    made = net()
    assert made.fit(X, Y, epochs=5, initial_epoch=3, verbose=0).epoch == [3, 4]


@pytest.mark.parametrize(
    ("given", "options", "error", "words"),
    [
        ([], {}, ConvError, "no batches"), (iter([]), {}, ConvError, "no batches"),
        ([(X, Y, np.ones(23))], {}, ConvTypeError, r"3 values.*[Ss]ample weights.*keras\.install"),
        ([X], {}, ConvTypeError, r"pairs"), ([(X, Y[:5])], {}, ConvError, "batch 1: x holds 23 samples and y 5"),
        ([*batches(), (X[:, :3], Y)], {}, ConvError, "batch 5.*dense"),
        (X, {}, ConvTypeError, "y must be given"), (batches(), {"validation_split": 0.5}, ConvError, "yields batches"),
        (batches(), {"steps_per_epoch": 0}, ConvError, "steps_per_epoch"),
        (batches(), {"class_weight": {}}, ConvTypeError, r"class_weight.*keras\.install\(\)"),
        (batches(), {"validation_data": (X,)}, ConvTypeError, "validation_data"),
        (batches(), {"validation_data": 3}, ConvTypeError, "validation_data"),
    ],
)  # fmt: skip
def test_refusals(given: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"(?s){words}"):
        net().fit(given, verbose=0, **options)


def test_one_array_in_a_list_and_samples_or_batches_one_by_one() -> None:
    made = net()
    np.testing.assert_array_equal(made.predict([X]), made.predict(X))
    np.testing.assert_array_equal(made.predict(x for x in X), made.predict(X))
    np.testing.assert_array_equal(made.predict(x for x, _ in batches()), made.predict(X))
    np.testing.assert_array_equal(made.predict({"input": X}), made.predict(X))
    assert made.evaluate([X], [Y]) == made.evaluate(X, Y)


def test_a_generator_that_is_not_read_to_its_end_goes_on() -> None:
    given = endless()
    net().evaluate(given, steps=2)
    np.testing.assert_array_equal(next(given)[0], batches()[2][0])


def test_what_is_measured_is_measured_once() -> None:
    """Steps beyond the batches: a warning that speaks of no training, and no batch twice, as in Keras."""
    made = net()
    wanted = made.evaluate(X, Y, 6)
    for given in ((X, Y), (batches(),), (Loader(),), (iter(batches()),)):
        with pytest.warns(RuntimeWarning, match=r"x ran out of batches after 4 of 9 steps: nothing more is measured"):
            assert made.evaluate(*given, batch_size=6, steps=9) == wanted
    seen: list[int] = []

    class Count:
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    with pytest.warns(RuntimeWarning, match="validation_data ran out of batches after 4 of 9 steps"):
        made.fit(X, Y, verbose=0, validation_data=batches(), validation_steps=9, callbacks=[Count()])
    assert seen == [0, 1, 2, 3]


def test_a_validation_that_is_used_up_ends_and_the_training_goes_on() -> None:
    made = net()
    with pytest.warns(RuntimeWarning, match="validation_data ran out of batches after 2 epochs"):
        history = made.fit(
            X, Y, epochs=4, verbose=0, validation_data=iter(batches()), validation_steps=2
        )
    assert history.epoch == [0, 1, 2, 3] and len(history.history["val_loss"]) == 2
    with pytest.raises(ConvError, match="validation_data has no batches"):
        made.fit(X, Y, verbose=0, validation_data=iter([]), validation_steps=2)


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_list_of_two_batches_is_no_pair(kind: Any) -> None:
    made = net()
    two = [kind(batch) for batch in batches(12)]
    assert len(two) == 2
    history = made.fit(X, Y, verbose=0, validation_data=two).history
    assert history["val_loss"][0] == pytest.approx(made.evaluate(X, Y))
    for pair in ((X, Y), [X, Y], [X[:2].tolist(), Y[:2].tolist()], [[X[0], X[1]], [Y[0], Y[1]]], (X[:2], [[1.0], [2]])):
        assert made.fit(X, Y, verbose=0, validation_data=pair).history["val_loss"]
    both = two_inputs()
    both.compile("sgd", "mse")
    x = [np.ones((2, 5, 5, 2)), np.ones((2, 3))]
    for several in ([x, np.ones((2, 1))], [(x, np.ones((2, 1)))] * 2, [tuple(x), np.ones((2, 1))]):
        assert both.fit(x, np.ones((2, 1)), verbose=0, validation_data=several).history["val_loss"]
