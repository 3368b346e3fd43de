"""Callbacks of `fit`: functions, objects with the methods of Keras' callbacks, and what is refused before a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastconv import ConvTypeError, Sequential, layers, losses

RNG = np.random.default_rng(0)
X, Y = RNG.random((40, 6), dtype=np.float32), RNG.integers(0, 3, 40)
HELD = (X[:20], Y[:20])


def model() -> Sequential:
    net = Sequential([layers.Dense(3)], input_shape=(6,), seed=0)
    net.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    return net


def fit(net: Sequential, callbacks: Any, **options: Any) -> Any:
    options = {"epochs": 3, "validation_data": HELD} | options
    return net.fit(X, Y, batch_size=10, verbose=0, seed=0, callbacks=callbacks, **options)


class Recorder:
    """Every method of a callback; writes down the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.params: dict[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))


class Stop:
    """Sets `stop_training` in one of the methods, at one number."""

    def __init__(self, method: str, number: int) -> None:
        self.method, self.number = method, number

    def set_model(self, model: Any) -> None:
        self.model = model

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.look("epoch begin", epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.look("epoch end", epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.look("batch begin", batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.look("batch end", batch)

    def look(self, method: str, number: int) -> None:
        if (method, number) == (self.method, self.number):
            self.model.stop_training = True


def test_methods_are_called_in_the_order_of_keras():
    seen, net = Recorder(), model()
    fit(net, [seen], epochs=2)
    batches = [name for _ in range(4) for name in ("on_train_batch_begin", "on_train_batch_end")]
    measured = [name for _ in range(2) for name in ("on_test_batch_begin", "on_test_batch_end")]
    epoch = ["on_epoch_begin", *batches, "on_test_begin", *measured, "on_test_end", "on_epoch_end"]
    assert [call[0] for call in seen.calls] == ["on_train_begin", *epoch, *epoch, "on_train_end"]
    assert seen.model is net and seen.params == {"epochs": 2, "steps": 4, "verbose": 0}
    numbers = [call[1] for call in seen.calls if call[0] == "on_train_batch_end"]
    assert numbers == [0, 1, 2, 3] * 2
    assert [call[1] for call in seen.calls if call[0] == "on_epoch_end"] == [0, 1]


def test_the_values_are_means_so_far_and_those_of_the_history():
    seen, net = Recorder(), model()
    history = fit(net, seen, epochs=2, shuffle=False).history  # one alone needs no list
    ends = [call[-1] for call in seen.calls if call[0] == "on_epoch_end"]
    assert all(ends[i][name] == values[i] for name, values in history.items() for i in range(2))
    assert set(history) >= {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    of_batches = [call[-1]["loss"] for call in seen.calls if call[0] == "on_train_batch_end"][:4]
    alone, again = [], model()
    for begin in range(0, 40, 10):
        alone.append(again.train_on_batch(X[begin : begin + 10], Y[begin : begin + 10])[0])
    np.testing.assert_allclose(of_batches, np.cumsum(alone) / np.arange(1, 5))
    assert of_batches[-1] == history["loss"][0]


@pytest.mark.parametrize(
    "method, number, epochs, steps",
    [("batch end", 0, 1, 1), ("batch end", 2, 1, 3), ("batch begin", 1, 1, 2), ("epoch begin", 1, 2, 5),
     ("epoch end", 0, 1, 4), ("epoch end", 1, 2, 8), ("epoch end", 9, 3, 12)],
)  # fmt: skip
def test_stop_training_is_obeyed(method, number, epochs, steps):
    net, seen = model(), Recorder()
    history = fit(net, [Stop(method, number), seen])
    assert history.epoch == list(range(epochs)) and net.optimizer.iterations == steps
    assert [call[0] for call in seen.calls[-2:]] == ["on_epoch_end", "on_train_end"]
    fit(net, [], epochs=1)  # the next training is not stopped
    assert net.optimizer.iterations == steps + 4


def test_functions_and_objects_together():
    net, seen = model(), Recorder()
    values: list[tuple[int, float]] = []

    def look(epoch: int, now: dict[str, float]) -> bool:
        values.append((epoch, now["loss"]))
        return epoch == 1

    history = fit(net, [look, seen, lambda *both: None, print_nothing])
    assert [loss for _, loss in values] == history.history["loss"] and len(values) == 2
    assert history is net.history
    assert sum(call[0] == "on_epoch_end" for call in seen.calls) == 2


def print_nothing(epoch: int, values: dict[str, float]) -> None:
    return None


def test_a_rate_that_a_callback_sets_is_used():
    class Halve:
        def set_model(self, model: Any) -> None:
            self.model = model

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = 0.5**epoch

    assert fit(model(), [Halve()]).history["learning_rate"] == [1, 0.5, 0.25]


@pytest.mark.parametrize("given", ["array", "few", "samples", "sizes"])
def test_batches_of_predict_are_numbered_from_its_beginning(given, monkeypatch):
    net, seen = model(), Recorder()
    if given == "sizes":  # as many samples a batch as are alike
        net = Sequential([layers.Conv2D(2, 1), layers.GlobalMaxPooling2D()], seed=0)
        x: Any = [np.ones((side, 4, 3), np.float32) for side in (2, 2, 3, 3, 3, 3, 2)]
        sizes = [2, 3, 1, 1]
    else:
        x, sizes = (X[:8], [3, 3, 2]) if given == "array" else (X[:3], [3])
        x, sizes = (iter(X[:8]), [3, 3, 2]) if given == "samples" else (x, sizes)
    net.predict(X[:1] if given != "sizes" else x[0][None])  # the net is prepared
    plan = type(net.compile_inference())
    run = plan.run
    monkeypatch.setattr(plan, "run", lambda *both: seen.calls.append(("run",)) or run(*both))
    net.predict(x, 3, callbacks=[seen])
    batch = ["on_predict_batch_begin", "run", "on_predict_batch_end"]
    assert [call[0] for call in seen.calls] == ["on_predict_begin", *batch * len(sizes), "on_predict_end"]
    ends = [call[1:] for call in seen.calls if call[0] == "on_predict_batch_end"]
    assert [number for number, _ in ends] == list(range(len(sizes)))
    assert [len(logs["outputs"]) for _, logs in ends] == sizes
    assert [call[1] for call in seen.calls if call[0] == "on_predict_batch_begin"] == list(range(len(sizes)))


def test_older_names_of_the_batch_methods():
    class Older:
        ends = 0

        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends += 1

    older = Older()
    fit(model(), [older], epochs=1)
    assert older.ends == 4


class TakesLittle:
    def on_epoch_end(self) -> None:
        raise AssertionError("called")


class NoMethod:
    on_epoch_end = 3


class Checkpoint:
    save_weights_only = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise AssertionError("called")


@pytest.mark.parametrize(
    "callbacks, words",
    [
        ([3], "got 3 of type int"), ([None], "NoneType"), (["EarlyStopping"], "'EarlyStopping'"),
        ([object()], "object"), (3, "type int"), ("stop", "type str"), ({"stop": print}, "type dict"),
        ([Recorder], "class Recorder; write"),
        (Recorder, "class Recorder; write"), ([lambda epoch: None], "(epoch)"), ([lambda: None], "()"),
        ([lambda a, b, c: None], "(a, b, c)"), ([TakesLittle()], "TakesLittle.on_epoch_end"),
        ([NoMethod()], "NoMethod"),
        ([print_nothing, NoMethod()], "NoMethod"), ([Checkpoint()], "model.save"), ([len], "len"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_called_is_refused_before_the_first_step(callbacks, words):
    net = model()
    before = net.get_weights()
    with pytest.raises(ConvTypeError, match="callbacks") as caught:
        fit(net, callbacks)
    assert words in str(caught.value)
    assert net.optimizer.iterations == 0 and all(map(np.array_equal, before, net.get_weights()))


@pytest.mark.parametrize("callbacks", [None, (), [], iter([print_nothing]), print_nothing], ids=str)
def test_none_one_and_any_iterable(callbacks):
    assert fit(model(), callbacks, epochs=1).epoch == [0]


# ---- Keras' own -----------------------------------------------------------------------------------------------------


@pytest.fixture
def keras(monkeypatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    return pytest.importorskip("keras")


def test_callbacks_of_keras(keras, tmp_path):
    own = keras.callbacks
    assert fit(model(), [own.EarlyStopping("loss", min_delta=10, patience=1)], epochs=9).epoch == [0, 1]
    for metric in ("accuracy", "val_accuracy"):  # whose direction Keras would look for in its own metrics
        history = fit(model(), own.EarlyStopping(metric, min_delta=2, patience=1, restore_best_weights=True), epochs=9)
        assert history.epoch == [0, 1]
    rates = fit(model(), [own.LearningRateScheduler(lambda epoch, rate: rate / 2)]).history["learning_rate"]
    assert rates == pytest.approx([0.005, 0.0025, 0.00125])
    net = model()
    fit(net, [own.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=10), own.TerminateOnNaN(), own.History()])
    assert net.optimizer.learning_rate == pytest.approx(1e-4) and len(net.history.history["loss"]) == 3
    fit(model(), [own.CSVLogger(str(tmp_path / "log.csv"))])
    assert (tmp_path / "log.csv").read_text().count("\n") == 4
    with pytest.raises(ConvTypeError, match=r"model\.save"):
        fit(model(), [own.ModelCheckpoint(str(tmp_path / "w.weights.h5"), save_weights_only=True)])
    with pytest.raises(ConvTypeError, match="class EarlyStopping; write it with parentheses"):
        fit(model(), [own.EarlyStopping])
