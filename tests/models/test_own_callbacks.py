"""fastconv.callbacks: what each does by hand-made expectations, and, where Keras is installed, as Keras' own does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import two_heads

from fastconv import ConvError, ConvTypeError, Sequential, callbacks, layers, load_model, losses
from fastconv.callbacks import Callback, CSVLogger, EarlyStopping, LearningRateScheduler, ModelCheckpoint

X = np.random.default_rng(0).random((24, 4), np.float32)
Y = X.sum(1, keepdims=True)


def net() -> Sequential:
    made = Sequential([layers.Dense(1)], (4,), seed=0)
    made.compile("sgd", "mse")
    return made


class Pretended:
    """A net that callbacks may stop, save and set."""

    def __init__(self, rate: float = 0.1) -> None:
        self.stop_training, self.weights, self.files = False, -1, []  # type: ignore[var-annotated]
        self.optimizer = type("Rated", (), {"learning_rate": rate, "current_rate": lambda own: own.learning_rate})()
        self.metrics: list[Any] = []

    def get_weights(self) -> list[Any]:
        return [self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        (self.weights,) = weights

    def save(self, path: Any, overwrite: bool = True) -> None:
        self.files.append(str(path))


def played(callback: Any, values: list[float], name: str = "val_loss", batches: int = 0) -> tuple[int, Any, list[str]]:
    """(epochs that ran, the weights at the end, files saved) of a training with these values; weights are the epoch."""
    model = Pretended()
    callback.set_params({"epochs": len(values), "steps": batches, "verbose": 0})
    callback.set_model(model)
    callback.on_train_begin({})
    epoch = -1
    for epoch, value in enumerate(values):
        callback.on_epoch_begin(epoch, {})
        for batch in range(batches):
            callback.on_train_batch_end(batch, {"loss": value + batch})
        model.weights = epoch
        callback.on_epoch_end(epoch, {name: value, "loss": value})
        if model.stop_training:
            break
    callback.on_train_end({})
    return epoch + 1, model.weights, model.files


# ---- early stopping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "epochs", "weights"),
    [
        ({}, [3, 2, 1, 1, 0], 4, 3), ({"patience": 2}, [3, 2, 2, 2, 1], 4, 3), ({"patience": 3}, [3, 2, 2, 2, 1], 5, 4),
        ({"min_delta": 1.5}, [3, 2, 1], 2, 1), ({"mode": "max"}, [1, 2, 3, 2], 4, 3),
        ({"patience": 1, "restore_best_weights": True}, [3, 1, 2, 2], 3, 1),
        ({"restore_best_weights": True}, [3, 2, 1], 3, 2),
        ({"patience": 5, "restore_best_weights": True}, [3, 1, 2], 3, 1),
        ({"baseline": 0.5, "patience": 1}, [3, 2, 1, 1, 1], 4, 3), ({"start_from_epoch": 3}, [1, 2, 3, 4, 5], 5, 4),
        ({"monitor": "val_accuracy"}, [1, 2, 3, 2], 4, 3), ({"monitor": "val_accuracy", "mode": "min"}, [1, 2], 2, 1),
        ({"monitor": "head_accuracy"}, [1, 2], 2, 1),
    ],
)  # fmt: skip
def test_early_stopping(options: dict[str, Any], values: list[float], epochs: int, weights: int) -> None:
    name = options.get("monitor", "val_loss")
    assert played(EarlyStopping(**options), values, name)[:2] == (epochs, weights)


def test_early_stopping_of_a_training_gives_back_the_best_weights(capsys: pytest.CaptureFixture[str]) -> None:
    made, seen = net(), []
    stop = EarlyStopping("loss", patience=2, restore_best_weights=True, verbose=1)
    rise = LearningRateScheduler(lambda epoch: 0.1 if epoch < 4 else 3.0)  # and the loss rises

    def keep(epoch: int, values: dict[str, float]) -> None:
        seen.append((values["loss"], made.get_weights()))

    history = made.fit(X, Y, 8, 20, verbose=0, shuffle=False, callbacks=[keep, rise, stop])
    best = int(np.argmin([loss for loss, _ in seen]))
    assert len(history.epoch) == best + 3 == stop.stopped_epoch + 1 and stop.best_epoch == best
    for one, other in zip(made.get_weights(), seen[best][1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert f"epoch {best + 1}" in capsys.readouterr().out
    with pytest.warns(RuntimeWarning, match="'val_loss', which was not measured"):
        made.fit(X, Y, verbose=0, callbacks=EarlyStopping())


# ---- files ----------------------------------------------------------------------------------------------------------


def test_checkpoints_name_epochs_and_values_and_make_the_net_again(tmp_path: Path) -> None:
    made = net()
    where = tmp_path / "runs" / "net-{epoch:02d}-{val_loss:.3f}.npz"
    history = made.fit(X, Y, 8, 3, (X, Y), 0, seed=0, callbacks=[ModelCheckpoint(where)]).history
    names = [f"net-{epoch:02d}-{loss:.3f}.npz" for epoch, loss in enumerate(history["val_loss"], 1)]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == sorted(names)
    last, first = load_model(tmp_path / "runs" / names[-1]), load_model(tmp_path / "runs" / names[0])
    assert last.evaluate(X, Y) == pytest.approx(history["val_loss"][-1])
    first.fit(X, Y, 8, 2, verbose=0, shuffle=False)
    assert first.optimizer.iterations == made.optimizer.iterations  # type: ignore[union-attr]
    made.fit(X, Y, verbose=0, callbacks=ModelCheckpoint(tmp_path / "w.npz", save_weights_only=True))
    with pytest.raises(ConvError, match="weights alone"):
        load_model(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("options", "batches", "files"),
    [
        ({}, 0, ["1", "2", "3", "4"]), ({"save_best_only": True}, 0, ["1", "3"]),
        ({"save_best_only": True, "mode": "max"}, 0, ["1", "2"]),
        ({"save_best_only": True, "initial_value_threshold": 1.5}, 0, ["3"]),
        ({"save_freq": 3}, 2, ["2", "3", "4"][:2]), ({"save_freq": 2}, 2, ["1", "2", "3", "4"]),
        ({"save_freq": 5}, 2, ["3"]),
    ],
)  # fmt: skip
def test_when_checkpoints_are_written(options: dict[str, Any], batches: int, files: list[str], tmp_path: Path) -> None:
    _, _, saved = played(ModelCheckpoint(tmp_path / "{epoch}.npz", **options), [2, 3, 1, 1], batches=batches)
    assert [Path(path).stem for path in saved] == files


def test_refusals(tmp_path: Path) -> None:
    for call, error, words in [
        (lambda: ModelCheckpoint("net.h5"), ConvError, r"\.npz or \.safetensors"),
        (lambda: ModelCheckpoint(3), ConvTypeError, "filepath"),  # type: ignore[arg-type]
        (lambda: ModelCheckpoint("a.npz", save_freq="batch"), ConvError, "save_freq"),
        (lambda: ModelCheckpoint("a.npz", save_freq=0), ConvError, "save_freq"),
        (lambda: EarlyStopping(mode="best"), ConvError, "mode"), (lambda: EarlyStopping(3), ConvTypeError, "monitor"),  # type: ignore[arg-type]
        (lambda: EarlyStopping(patience=1.5), ConvTypeError, "patience"),  # type: ignore[arg-type]
        (lambda: CSVLogger("a.csv", separator="::"), ConvError, "separator"),
        (lambda: LearningRateScheduler(0.1), ConvTypeError, "schedule"),  # type: ignore[arg-type]
        (lambda: callbacks.ReduceLROnPlateau, AttributeError, r"keras\.callbacks\.ReduceLROnPlateau"),
    ]:
        with pytest.raises(error, match=words):
            call()
    with pytest.raises(ConvError, match=r"'\{epoch\}-\{acc\}.npz'.*acc.*values are epoch, loss"):
        net().fit(X, Y, verbose=0, callbacks=ModelCheckpoint("{epoch}-{acc}.npz"))
    for rate in (-1.0, "fast", None):
        with pytest.raises(ConvError, match="schedule must give"):
            net().fit(X, Y, verbose=0, callbacks=LearningRateScheduler(lambda epoch, now, rate=rate: rate))  # type: ignore[misc]
    with pytest.raises(FileNotFoundError):
        net().fit(X, Y, verbose=0, callbacks=CSVLogger(tmp_path / "no" / "log.csv"))


def test_values_in_a_file(tmp_path: Path) -> None:
    where = tmp_path / "log.csv"
    made = net()
    history = made.fit(X, Y, 8, 2, (X, Y), 0, callbacks=CSVLogger(where, separator=";")).history
    made.fit(X, Y, 8, 1, (X, Y), 0, callbacks=CSVLogger(where, ";", append=True))
    with open(where, newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row["epoch"] for row in rows] == ["0", "1", "0"]
    assert [float(row["val_loss"]) for row in rows[:2]] == history["val_loss"]
    made.fit(X, Y, 8, 1, verbose=0, callbacks=CSVLogger(where))
    head, row = where.read_text().split()
    assert head.startswith("epoch,images_per_second,learning_rate,loss,val_") and row.endswith("NA,NA,NA")


# ---- rates and the base ---------------------------------------------------------------------------------------------


def test_rates_by_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    made = net()
    halve = LearningRateScheduler(lambda epoch, rate: rate / 2, verbose=1)
    assert made.fit(X, Y, 8, 3, verbose=0, callbacks=halve).history["learning_rate"] == [0.005, 0.0025, 0.00125]
    assert "epoch 2: learning rate 0.0025" in capsys.readouterr().out
    steps = LearningRateScheduler(lambda epoch: [0.1, 0.2][epoch])
    assert made.fit(X, Y, 8, 2, verbose=0, callbacks=steps).history["learning_rate"] == [0.1, 0.2]


class Seen(Callback):
    """Writes down what it is called for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.calls.append(f"{batch}: {(logs or {})['outputs'].shape}")

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        self.calls.append("predicted")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self.calls.append(f"tested {sorted(logs or {})}")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == 1:
            self.model.stop_training = True


def test_the_base_is_called_by_fit_evaluate_and_predict() -> None:
    made, seen = net(), Seen()
    made.fit(X, Y, 8, 3, (X, Y), 0, callbacks=[seen, Callback()])
    made.evaluate(X, Y, callbacks=seen)
    made.predict(X, batch_size=16, callbacks=seen)
    assert seen.calls == ["tested ['loss']"] * 2 + ["0: (16, 1)", "1: (8, 1)", "predicted"]
    assert seen.model is made and made.optimizer.iterations == 2  # type: ignore[union-attr]
    assert made.history.epoch == [0]  # type: ignore[union-attr]


def test_several_outputs_are_watched_by_name(tmp_path: Path) -> None:
    made = two_heads()
    made.compile("sgd", {"kind": losses.SparseCategoricalCrossentropy(), "place": "mse"}, {"kind": "accuracy"})
    x = np.random.default_rng(0).random((12, 6, 6, 1), np.float32)
    y = [np.arange(12) % 3, np.zeros((12, 2))]
    stop = EarlyStopping("val_kind_accuracy", min_delta=2)
    assert made.fit(x, y, 6, 9, (x, y), 0, callbacks=[stop, CSVLogger(tmp_path / "log.csv")]).epoch == [0, 1]
    assert "val_place_loss" in (tmp_path / "log.csv").read_text()


# ---- as Keras' own --------------------------------------------------------------------------------------------------


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    return pytest.importorskip("keras")


def test_keras_stops_saves_and_writes_the_same(keras: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        values = [float(v) for v in random.integers(0, 6, random.integers(1, 9)) / 2]
        options: dict[str, Any] = {
            "patience": int(random.integers(0, 4)), "min_delta": float(random.choice([0, 0.5, -0.5])),
            "mode": str(random.choice(["min", "max"])), "restore_best_weights": bool(random.integers(2)),
            "baseline": None if random.integers(2) else 1.5, "start_from_epoch": int(random.integers(0, 3)),
        }  # fmt: skip
        own, theirs = EarlyStopping(**options), keras.callbacks.EarlyStopping(**options)
        assert played(own, values) == played(theirs, values), (options, values)
        assert (own.best_epoch, own.stopped_epoch) == (theirs.best_epoch, theirs.stopped_epoch)
        freq: Any = "epoch" if random.integers(2) else int(random.integers(1, 5))
        saving = {  # Keras' own fails where it saves the best behind steps of the first epoch
            "save_best_only": freq == "epoch" and bool(random.integers(2)), "mode": options["mode"], "save_freq": freq,
            "initial_value_threshold": None if random.integers(2) else 1.0, "monitor": "loss",
        }  # fmt: skip
        files = []
        for made, end in ((ModelCheckpoint, ".npz"), (keras.callbacks.ModelCheckpoint, ".keras")):
            writer = made(str(tmp_path / f"{{epoch}}-{{loss:.1f}}{end}"), **saving)
            files.append([Path(path).stem for path in played(writer, values, batches=3)[2]])
        assert files[0] == files[1], (saving, values)
    for options in ({}, {"append": True}, {"separator": ";"}):
        for made, name in ((CSVLogger, "own.csv"), (keras.callbacks.CSVLogger, "theirs.csv")):
            played(made(str(tmp_path / name), **options), [3.0, 2.5])
        assert (tmp_path / "own.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_keras_names_the_values_of_several_outputs_alike_and_splits_alike(keras: Any) -> None:
    """The same two heads in both, the last quarter held out, no step: names and values agree."""
    ours = two_heads()
    ours.compile("sgd", ["sparse_categorical_crossentropy", "mse"], [["accuracy"], []], loss_weights=[1.0, 2.0])
    given = keras.Input((6, 6, 1))
    trunk = keras.layers.Flatten()(keras.layers.Conv2D(3, 3, activation="relu")(given))
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(trunk)
    place = keras.layers.Dense(2, name="place")(keras.layers.Dense(4, activation="tanh")(trunk))
    theirs = keras.Model(given, [kind, place])
    wanted = ["sparse_categorical_crossentropy", "mse"]
    theirs.compile(keras.optimizers.SGD(0.0), wanted, [1.0, 2.0], [["accuracy"], []])
    for name in ("kind", "place"):
        theirs.get_layer(name).set_weights(ours.get_layer(name).get_weights())
    theirs.layers[1].set_weights(ours.layers[0].get_weights())
    inner = next(layer for layer in theirs.layers if layer.name.startswith("dense"))
    inner.set_weights(ours.get_layer("dense").get_weights())
    ours.optimizer.learning_rate = 0.0  # type: ignore[union-attr]
    random = np.random.default_rng(0)
    x, y = random.random((21, 6, 6, 1), np.float32), [np.arange(21) % 3, random.random((21, 2), np.float32)]
    how: dict[str, Any] = {"batch_size": 4, "epochs": 1, "verbose": 0, "validation_split": 0.3}
    histories = [made.fit(x, y, **how).history for made in (ours, theirs)]
    named = {name for name in histories[0] if name not in ("learning_rate", "images_per_second")}
    assert named == set(histories[1])
    for name in sorted(named):
        assert histories[0][name] == pytest.approx(histories[1][name], rel=1e-4), name
