"""Training: optimisers and losses against their formulas, fit, interruption, errors that leave the model unharmed."""

import os
import signal
import sys
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, ConvTypeError, Input, Model, Sequential, layers, losses, models, optimizers
from fastconv.layers.base import Parameter

Array = np.ndarray[Any, np.dtype[Any]]


def parameter(values: Array) -> Parameter:
    made = Parameter("w", values.shape, values.dtype, lambda shape, random: values, True)
    made.assign(values)
    return made


def stripes(count: int, seed: int = 0) -> tuple[Array, Array]:
    """Images 8 x 8 of rows (0), columns (1) or noise (2): learnt in seconds."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = random.standard_normal((count, 8, 8, 1)).astype("float32") * 0.3
    for image, label in zip(x, y, strict=True):
        if label < 2:
            wave = np.sign(np.sin(np.arange(8) * 2 + random.random()))
            image += wave[:, None, None] if label == 0 else wave[:, None]
    return x, y


def small_net(seed: int = 0) -> Sequential:
    return Sequential(
        [
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ],
        (8, 8, 1),
        seed=seed,
    )


# ---- optimisers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_its_formula(dtype: str, nesterov: bool, momentum: float) -> None:
    random = np.random.default_rng(0)
    w = random.standard_normal((7, 11)).astype(dtype)
    p, v = parameter(w), np.zeros_like(w)
    rule = optimizers.SGD(0.1, momentum, nesterov, weight_decay=0.01)
    for _ in range(3):
        g = random.standard_normal(w.shape).astype(dtype)
        p.grad = g
        rule.apply([p])
        w = w * (1 - 0.01 * 0.1)
        v = momentum * v - 0.1 * g
        w = w + (momentum * v - 0.1 * g if nesterov and momentum else v)
    np.testing.assert_allclose(p.array, w, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [5, 200_000])  # one task, several
def test_adamw_follows_its_formula(size: int, dtype: str) -> None:
    random = np.random.default_rng(0)
    w = random.standard_normal(size).astype(dtype)
    p, m, s = parameter(w), np.zeros(size), np.zeros(size)
    rule = optimizers.AdamW(0.01, weight_decay=0.1)
    for t in (1, 2, 3):
        g = random.standard_normal(size).astype(dtype)
        p.grad = g
        rule.apply([p])
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
        corrected = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w * (1 - 0.1 * 0.01) - corrected * m / (np.sqrt(s) + 1e-7)
    close = {"rtol": 1e-9} if dtype == "float64" else {"rtol": 1e-5, "atol": 1e-7}  # w may pass through zero
    np.testing.assert_allclose(p.array, w, **close)


def test_weight_decay_spares_what_is_named() -> None:
    p = parameter(np.ones(4))
    p.grad = np.zeros(4)
    rule = optimizers.SGD(1.0, weight_decay=0.5)
    rule.exclude_from_weight_decay(["w"])
    rule.apply([p])
    np.testing.assert_array_equal(p.array, np.ones(4))


def test_schedules() -> None:
    decay = optimizers.ExponentialDecay(1.0, 10, 0.5)
    assert (decay(0), decay(10)) == (1.0, 0.5)
    assert optimizers.ExponentialDecay(1.0, 10, 0.5, staircase=True)(19) == 0.5
    cosine = optimizers.CosineDecay(1.0, 100, alpha=0.1)
    assert (cosine(0), cosine(50), cosine(100)) == pytest.approx((1.0, 0.55, 0.1))
    warm = optimizers.CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10)
    assert (warm(0), warm(5), warm(10), warm(110)) == pytest.approx((0, 0.5, 1, 0))
    steps = optimizers.PiecewiseConstantDecay([5, 8], [3, 2, 1])
    assert [steps(s) for s in (0, 5, 6, 8, 9)] == [3, 3, 2, 2, 1]
    rule = optimizers.SGD(steps)
    p = parameter(np.zeros(1))
    for _ in range(7):
        p.grad = np.ones(1)
        rule.apply([p])
    assert p.array[0] == -(6 * 3 + 2)


# ---- losses -----------------------------------------------------------------------------------------------------


def finite_difference(loss: losses.Loss, outputs: Array, target: Array) -> Array:
    gradient = np.empty_like(outputs)
    for index in np.ndindex(outputs.shape):
        sides = []
        for step in (1e-6, -1e-6):
            moved = outputs.copy()
            moved[index] += step
            sides.append(loss(moved, target)[0])
        gradient[index] = (sides[0] - sides[1]) / 2e-6
    return gradient


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("spread", [False, True])
def test_cross_entropy_and_its_gradient(smoothing: float, spread: bool) -> None:
    random = np.random.default_rng(0)
    z, labels = random.standard_normal((6, 4)), random.integers(0, 4, 6)
    one_hot = np.eye(4)[labels]
    loss = losses.SoftmaxCrossEntropy(label_smoothing=smoothing)
    target = loss.check(one_hot if spread else labels, (4,))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    wanted = -((one_hot * (1 - smoothing) + smoothing / 4) * np.log(p)).sum(axis=1).mean()
    value, gradient = loss(z, target)
    assert value == pytest.approx(wanted)
    np.testing.assert_allclose(gradient, finite_difference(loss, z, target), atol=1e-8)


def test_cross_entropy_of_maps_and_of_extreme_scores() -> None:
    z = np.random.default_rng(0).standard_normal((2, 3, 3, 4))
    loss = losses.SparseCategoricalCrossentropy()
    target = loss.check(np.ones((2, 3, 3), int), (3, 3, 4))
    np.testing.assert_allclose(loss(z, target)[1], finite_difference(loss, z, target), atol=1e-8)
    value, gradient = loss(np.array([[1000.0, -1000.0]]), np.array([1]))
    assert value == 2000
    np.testing.assert_array_equal(gradient, [[1, -1]])


@pytest.mark.parametrize("loss", [losses.MeanSquaredError(), losses.BinaryCrossentropy(label_smoothing=0.1),
                                  losses.BinaryCrossentropy(from_logits=True)])  # fmt: skip
def test_other_losses_and_their_gradients(loss: losses.Loss) -> None:
    random = np.random.default_rng(0)
    outputs, target = random.uniform(0.1, 0.9, (5, 3)), random.integers(0, 2, (5, 3)).astype(float)
    np.testing.assert_allclose(loss(outputs, target)[1], finite_difference(loss, outputs, target), atol=1e-8)


def test_the_gradient_of_a_whole_net_is_that_of_finite_differences() -> None:
    model = Sequential(
        [
            layers.Conv2D(3, 3, padding="same", activation="relu", dtype="float64"),
            layers.BatchNormalization(dtype="float64"),
            layers.MaxPooling2D(2, dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(4, activation="softmax", dtype="float64"),
        ],
        (6, 6, 2),
        seed=0,
    )
    model.compile(optimizers.SGD(0.0))
    random = np.random.default_rng(0)
    x, y = random.standard_normal((3, 6, 6, 2)), np.array([0, 3, 1])

    def value() -> float:
        p = model.forward(x, training=True)
        return float(-np.log(p[np.arange(3), y]).mean())

    model.train_on_batch(x, y)
    for p in model.trained_parameters():
        assert p.grad is not None
        flat, step = p.updated().reshape(-1), 1e-6
        for i in random.choice(flat.size, min(flat.size, 12), replace=False):
            kept = flat[i]
            flat[i] = kept + step
            high = value()
            flat[i] = kept - step
            low = value()
            flat[i] = kept
            assert p.grad.reshape(-1)[i] == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-7)


# ---- fit --------------------------------------------------------------------------------------------------------


def test_fit_learns_and_measures(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = stripes(600)
    model = small_net()
    model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    history = model.fit(x[:500], y[:500], 50, 4, (x[500:], y[500:]), verbose=2, seed=0)
    assert history is model.history
    assert history.epoch == [0, 1, 2, 3]
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert history.history["val_accuracy"][-1] > 0.9
    assert all(rate > 0 for rate in history.history["images_per_second"])
    assert capsys.readouterr().out.count("epoch") == 4
    loss, accuracy = model.evaluate(x[500:], y[500:])
    assert (loss, accuracy) == pytest.approx((history.history["val_loss"][-1], history.history["val_accuracy"][-1]))
    assert model.evaluate(x[500:], y[500:], return_dict=True) == pytest.approx({"loss": loss, "accuracy": accuracy})
    assert (model.predict(x[500:]).argmax(axis=1) == y[500:]).mean() == pytest.approx(accuracy)


def test_the_same_seeds_train_the_same_weights() -> None:
    x, y = stripes(100)
    nets = []
    for _ in range(2):
        model = small_net(seed=5)
        model.compile("sgd")
        model.fit(x, y, 32, 2, verbose=0, seed=1)
        nets.append(model.get_weights())
    for ours, theirs in zip(*nets, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_one_hot_targets_train_as_labels_do() -> None:
    x, y = stripes(32)
    one, other = small_net(3), small_net(3)
    one.compile("sgd", "sparse_categorical_crossentropy")
    other.compile("sgd", "categorical_crossentropy")
    assert one.train_on_batch(x, y) == pytest.approx(other.train_on_batch(x, np.eye(3)[y]))


def test_frozen_layers_stay() -> None:
    x, y = stripes(32)
    model = small_net()
    model.layers[0].trainable = model.layers[1].trainable = False
    before = model.layers[0].get_weights() + model.layers[1].get_weights()
    model.compile("adam")
    model.train_on_batch(x, y)
    for old, new in zip(before, model.layers[0].get_weights() + model.layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_memory_of_a_step_is_used_again() -> None:
    x, y = np.zeros((8, 32, 32, 3), np.float32), np.zeros(8, int)
    model = Sequential([layers.Conv2D(32, 3, padding="same", activation="relu"), layers.Conv2D(32, 3, padding="same"),
                        layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(2)], x.shape[1:])  # fmt: skip
    model.compile("sgd")
    model.train_on_batch(x, y)
    held = sum(len(free) for free in model._arena._free.values())
    model.train_on_batch(x, y)
    assert held == sum(len(free) for free in model._arena._free.values()) > 0
    assert not model._arena._lent


def test_callbacks_see_every_epoch_and_may_end_it() -> None:
    x, y = stripes(20)
    model = small_net()
    model.compile("sgd")
    seen: list[int] = []

    def stop(epoch: int, values: dict[str, float]) -> bool:
        seen.append(epoch)
        return "loss" in values and epoch == 1

    model.fit(x, y, epochs=5, verbose=0, callbacks=[stop])
    assert seen == [0, 1]


def test_control_c_ends_between_batches_and_leaves_the_model_usable() -> None:
    x, y = stripes(60)
    model = small_net()
    model.compile("sgd", metrics=["accuracy"])

    def press(epoch: int, values: dict[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, 20, 3, verbose=0, callbacks=[press])
    assert signal.getsignal(signal.SIGINT) is before
    assert model.history is not None
    assert model.history.epoch == [0]
    assert all(np.isfinite(w).all() for w in model.get_weights())
    model.fit(x, y, 20, 1, verbose=0)


@pytest.mark.parametrize("hidden", [False, True])
def test_the_bar_shows_loss_accuracy_and_speed(
    hidden: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if hidden:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    x, y = stripes(20)
    model = small_net()
    model.compile("sgd", metrics=["accuracy"])
    model.fit(x, y, 10, 1, (x, y), verbose=1)
    shown = capsys.readouterr().err
    for word in ("epoch 1/1", "loss", "accuracy", "val_loss", "images"):
        assert word in shown
    model.predict(list(x), verbose=1)
    assert "predict" in capsys.readouterr().err


# ---- errors -----------------------------------------------------------------------------------------------------


def unharmed(model: Sequential, call: Any, error: type[Exception], *words: str) -> None:
    before = model.get_weights()
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def compiled() -> Sequential:
    model = small_net()
    model.compile("sgd", metrics=["accuracy"])
    return model


def test_labels_out_of_range() -> None:
    x, y = stripes(10)
    model = compiled()
    unharmed(model, lambda: model.fit(x, np.where(y == 0, 3, y), verbose=0), ConvError, "label 3", "0 to 2")
    unharmed(model, lambda: model.fit(x, y - 1, verbose=0), ConvError, "label -1")
    unharmed(model, lambda: model.fit(x, y + 0.5, verbose=0), ConvTypeError, "whole")
    unharmed(model, lambda: model.train_on_batch(x, np.eye(3)[y]), ConvError, "y must have the shape")
    unharmed(model, lambda: model.fit(x, y, validation_data=(x, y + 5), verbose=0), ConvError, "validation_data")


def test_empty_and_unequal_data() -> None:
    x, y = stripes(10)
    model = compiled()
    unharmed(model, lambda: model.fit(x[:0], y[:0]), ConvError, "no samples")
    unharmed(model, lambda: model.evaluate(x[:0], y[:0]), ConvError, "no samples")
    unharmed(model, lambda: model.fit(x, y[:9]), ConvError, "10", "9")
    unharmed(model, lambda: model.fit(x, y, batch_size=0), ConvError, "batch_size")
    unharmed(model, lambda: model.fit(x, y, epochs=0), ConvError, "epochs")
    unharmed(model, lambda: model.fit(x, y, verbose=7), ConvError, "verbose")


def test_wrong_shapes_name_the_layer() -> None:
    x, y = stripes(10)
    model = compiled()
    unharmed(model, lambda: model.fit(x.repeat(2, axis=3), y), ConvError, "conv2d")
    unharmed(model, lambda: model.fit(x.repeat(2, axis=1), y), ConvError, "dense")
    unharmed(model, lambda: model.fit(x[..., 0], y), ConvError, "batch")


def test_a_loss_that_is_not_finite_names_the_layer() -> None:
    x, y = stripes(10)
    model = compiled()
    broken = x.copy()
    broken[3, 2, 1] = np.nan
    unharmed(model, lambda: model.fit(broken, y, verbose=0), ConvError, "loss is nan", "input x", "epoch 1/1, batch 1")
    kernel, bias = model.layers[-1].get_weights()
    kernel[0] = np.inf
    model.layers[-1].set_weights([kernel, bias])
    with np.errstate(invalid="ignore"):
        unharmed(model, lambda: model.train_on_batch(x, y), ConvError, "layer dense", "learning rate")


def test_what_is_not_compiled_or_not_known() -> None:
    x, y = stripes(4)
    model = small_net()
    unharmed(model, lambda: model.fit(x, y), ConvError, "compile")
    for call, word in [
        (lambda: model.compile("sdg"), "optimizer"),
        (lambda: model.compile("sgd", "crossentropy"), "loss"),
        (lambda: model.compile("sgd", metrics=["precision"]), "metrics"),
        (lambda: model.compile("sgd", metrics="accuracy"), "metrics"),
        (lambda: model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True)), "from_logits"),
        (lambda: optimizers.SGD(-1), "learning_rate"),
        (lambda: optimizers.SGD("fast"), "learning_rate"),
        (lambda: optimizers.Adam(beta_1=2), "beta_1"),
        (lambda: losses.SoftmaxCrossEntropy(label_smoothing=2), "label_smoothing"),
        (lambda: optimizers.PiecewiseConstantDecay([1], [1]), "boundaries"),
    ]:
        with pytest.raises((ConvError, ConvTypeError), match=word):
            call()


def test_a_gan_step() -> None:
    """Generator and discriminator train together through `backward`, as in the DCGAN paper."""
    generator = models.dcgan_generator(8, 4, 16, seed=0)
    discriminator = models.dcgan_discriminator((16, 16, 3), 4, seed=0)
    discriminator.compile(optimizers.Adam(2e-4, beta_1=0.5), "binary_crossentropy")
    noise = np.random.default_rng(0).standard_normal((4, 8)).astype("float32")
    fake = generator.forward(noise, training=True)
    discriminator.train_on_batch(fake, np.zeros(4))
    verdict = discriminator.forward(fake, training=True)
    _, gradient = losses.BinaryCrossentropy()(verdict, np.ones((4, 1)))
    generator.backward(discriminator.backward(gradient))
    assert all(p.grad is not None and np.isfinite(p.grad).all() for p in generator.trained_parameters())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("method", ["on_test_batch_begin", "on_test_batch_end", "on_test_end", "on_epoch_end"])
def test_an_interrupt_behind_the_last_step_is_not_swallowed(method: str) -> None:
    calls: list[int] = []

    def press(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    net = Sequential([layers.Dense(1)], (3,), seed=0)
    net.compile("sgd", "mse")
    x, y = np.ones((6, 3), np.float32), np.ones((6, 1), np.float32)
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y, 3, verbose=0, validation_data=[(x, y)] * 3, callbacks=type("Press", (), {method: press})())
    assert len(calls) == 1  # at the end of the batch


# ---- what a loss does not reach -------------------------------------------------------------------------------------


def _headed(nested: bool) -> Model:
    """Two heads of a trunk, in a net of their own if `nested`."""
    x = image = Input((4,))
    trunk = layers.Dense(3, name="trunk")(x)
    heads = [layers.Dense(2, name=name)(trunk) for name in ("left", "right")]
    net = Model(image, heads, seed=0)
    if not nested:
        return net
    outer = Input((4,))
    before = [layers.Dense(4, name=f"before_{side}")(outer) for side in ("left", "right")]
    sides = [Input((4,)), Input((4,))]
    made = [layers.Dense(2, name=name)(side) for side, name in zip(sides, ("left", "right"), strict=True)]
    return Model(outer, Model(sides, made, name="inner")(before), seed=0)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", optimizers.SGD(0.1, momentum=0.9), optimizers.AdamW(0.1)])
def test_what_a_new_loss_does_not_reach_stays_as_it_is(nested: bool, optimizer: Any) -> None:
    net, random = _headed(nested), np.random.default_rng(0)
    x, y = random.random((8, 4), np.float32), random.random((8, 2), np.float32)
    net.compile("sgd", "mse")
    net.train_on_batch(x, [y, y])
    net.compile(optimizer, ["mse", None])
    before = {path: p.array.copy() for path, p in net.named_parameters()}
    net.train_on_batch(x, [y, None])
    for path, parameter in net.named_parameters():
        assert ("right" in path) == np.array_equal(parameter.array, before[path]), path


def test_a_shared_net_adds_no_older_gradient() -> None:
    """Of a head that one of two calls reaches: the later call's loss is gone."""
    def net() -> Model:
        inner_in = Input((3,))
        heads = [layers.Dense(2, name=name)(inner_in) for name in ("left", "right")]
        inner, image = Model(inner_in, heads, name="inner"), Input((3,))
        first, second = inner(image), inner(layers.Dense(3, name="between")(image))
        return Model(image, [first[0], first[1], second[0], second[1]], seed=0)

    random = np.random.default_rng(0)
    x, y = random.random((8, 3), np.float32), random.random((8, 2), np.float32)
    old, new = net(), net()
    old.compile("sgd", "mse")
    old.train_on_batch(x, [y] * 4)
    old.set_weights(new.get_weights())
    for one in (old, new):
        one.compile("sgd", [None, "mse", "mse", None])
        one.train_on_batch(x, [None, y, y, None])
    for ours, theirs in zip(old.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
