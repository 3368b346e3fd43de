"""
A pitch is followed while the voice sings
=========================================

A net that hears a recording frame by frame must not look ahead, and should not compute again what it has computed. A
causal convolution looks at the past alone, and `fastconv.streaming` keeps as much of that as the kernel needs: each
step takes 20 ms of samples and gives one frame, with the bits of the whole recording at once. Here a net in the manner
of CREPE (Kim et al., 2018), a convolution of 512 taps and smaller ones behind it, learns the pitch of generated voices
in noise.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from _common import COLOURS, Array, Options, axis_at, main, new_figure, plain, print_table, saved

import fastconv
from fastconv import Sequential, layers
from fastconv.optimizers import Adam, CosineDecay
from fastconv.streaming import CausalConv1d

RATE, HOP = 8000, 160  # samples a second and a step: 20 ms
TAPS = 512
LOWEST, STEPS = 110.0, 48  # pitches: two octaves of quarter tones from A2 on; one class more for silence
SILENT = STEPS


def glide(random: np.random.Generator, frames: int) -> tuple[Array, Array]:
    """A melody: the pitch in quarter tones above the lowest at each frame, and where somebody sings."""
    pitch, sung = np.zeros(frames), np.zeros(frames, bool)
    at, now = 0, random.uniform(8, 40)
    while at < frames:
        length = int(random.integers(12, 45))
        target = np.clip(now + random.normal(0, 7), 2, STEPS - 3)
        part = slice(at, min(frames, at + length))
        ease = 1 - np.exp(-np.arange(part.stop - at) / 5)
        vibrato = 0.5 * np.sin(0.7 * np.arange(part.stop - at) + random.uniform(0, 6))
        pitch[part], sung[part] = now + (target - now) * ease + vibrato, random.random() < 0.75
        at, now = part.stop, target
    return pitch, sung


def recording(random: np.random.Generator, frames: int) -> tuple[Array, Array]:
    """Samples (frames * HOP, 1) of a voice in noise, and the class of each frame."""
    pitch, sung = glide(random, frames)
    time_axis = np.arange(frames * HOP)
    frequency = LOWEST * 2 ** (np.interp(time_axis, np.arange(frames) * HOP, pitch) / 24)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    formants, voice = random.uniform((300, 900), (800, 2400)), np.zeros(len(phase))
    for harmonic in range(1, 13):  # a buzz that the throat colours
        heard = frequency * harmonic
        strength = sum(np.exp(-(((heard - formant) / 350) ** 2)) for formant in formants) + 0.15
        voice += strength / harmonic**0.5 * (heard < 0.45 * RATE) * np.sin(harmonic * phase + random.uniform(0, 6))
    loud = np.repeat(sung * random.uniform(0.7, 1.3), HOP)
    loud = np.convolve(loud, np.ones(200) / 200, "same")  # nobody begins or ends at once
    noise = random.normal(0, 1, len(voice)) + np.convolve(random.normal(0, 2, len(voice)), np.ones(12) / 12, "same")
    samples = voice / voice.std() * loud + random.uniform(0.3, 0.7) * noise
    # a frame's window ends with its first sample, so that its middle is half a window earlier
    middle = np.maximum(0, np.arange(frames) - round(TAPS / (2 * HOP)))
    classes = np.where(sung[middle], np.rint(pitch[middle]).astype(int), SILENT)
    return samples[:, None].astype(np.float32), classes


def waves() -> Array:
    """Kernels to begin with (TAPS, 1, 4 * STEPS): bursts of each pitch's waves in four phases, as an ear has them."""
    t = np.arange(TAPS)[:, None] - TAPS / 2
    frequency = LOWEST * 2 ** (np.arange(STEPS) / 12)  # four octaves: overtones, too
    angles = [2 * np.pi * frequency * t / RATE + quarter * np.pi / 2 for quarter in range(4)]
    burst = np.hanning(TAPS)[:, None] * np.cos(np.concatenate(angles, 1))
    return (burst / np.sqrt((burst**2).sum(0)) * 0.5)[:, None].astype(np.float32)


def net(seed: int, frames: int) -> Sequential:
    """From samples to the probabilities of each pitch at each frame; nothing looks ahead."""
    made = Sequential([
        layers.Conv1D(4 * STEPS, TAPS, HOP, padding="causal", activation="relu", name="ear"),
        layers.Conv1D(96, 1, activation="relu"),
        layers.Conv1D(96, 3, padding="causal", activation="relu"),
        layers.Conv1D(96, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.Conv1D(STEPS + 1, 1, activation="softmax"),
    ], input_shape=(frames * HOP, 1), seed=seed)  # fmt: skip
    ear = made.layers[0]
    ear.set_weights([waves(), np.zeros(4 * STEPS, np.float32)])
    return made


def stream(trained: Sequential) -> list[CausalConv1d]:
    """The same net for a recording that has not ended yet; its last layer gives scores before the softmax."""
    return [
        CausalConv1d(*layer.get_weights(), layer.strides[0], layer.dilation_rate[0], data_format="NWC",
                     activation=None if layer is trained.layers[-1] else "relu")
        for layer in trained.layers
    ]  # fmt: skip


def whole(trained: Sequential, samples: Array) -> Array:
    """The scores of a whole recording at once."""
    x = samples[None]
    for layer in trained.layers:
        x = fastconv.conv1d(
            x, *layer.get_weights(), layer.strides[0], "causal", layer.dilation_rate[0], data_format="NWC",
            activation=None if layer is trained.layers[-1] else "relu", algorithm="direct",
        )  # fmt: skip
    return x[0]


def followed(parts: list[CausalConv1d], samples: Array) -> tuple[Array, list[float]]:
    """The scores, step by step, and the seconds that each step took."""
    scores, seconds = [], []
    for start in range(0, len(samples), HOP):
        begin = time.perf_counter()
        x = samples[None, start : start + HOP]
        for part in parts:
            x = part.run(x)
        seconds.append(time.perf_counter() - begin)
        scores.append(x[0])
    return np.concatenate(scores), seconds


def run(options: Options) -> None:
    random = np.random.default_rng(options.seed)
    frames, epochs, batch = 100, 8 if options.quick else 25, 8
    made = [recording(random, frames) for _ in range(100 if options.quick else 240)]
    samples, classes = np.stack([one for one, _ in made]), np.stack([wanted for _, wanted in made])
    trained = net(options.seed, frames)
    trained.summary()
    print()
    trained.compile(Adam(CosineDecay(2e-3, epochs * len(made) // batch)), "sparse_categorical_crossentropy")
    begin = time.perf_counter()
    trained.fit(samples, classes, batch, epochs, verbose=1 if sys.stderr.isatty() else 0, seed=options.seed)
    print(f"{epochs} epochs of {len(made)} recordings of 2 s: {time.perf_counter() - begin:.1f} s")

    heard, wanted = recording(random, 400)
    scores, seconds = followed(stream(trained), heard)
    assert np.array_equal(scores, whole(trained, heard))
    print("the steps, one after the other, have the bits of the whole recording at once")
    found = scores.argmax(1)
    sung, said = wanted != SILENT, found != SILENT
    near = np.abs(found - wanted) <= 1
    milliseconds = 1e3 * float(np.median(seconds))
    print(f"a step of 20 ms takes {milliseconds:.2f} ms\n")
    share = 100 * float(near[sung].mean())
    print_table(
        ("of 400 frames", "frames", "right"),
        [("sung, to a quarter tone", int(sung.sum()), f"{share:.1f} %"),
         ("silent", int((~sung).sum()), f"{100 * float((~said)[~sung].mean()):.1f} %")],
    )  # fmt: skip
    saved(draw(heard[:, 0], wanted, found, share, milliseconds), options, "pitch")


def spectrum(samples: Array) -> Array:
    """Decibels (frequencies, frames) up to 1 kHz, for the eye."""
    padded = np.concatenate([np.zeros(TAPS - 1, np.float32), samples])
    windows = np.lib.stride_tricks.sliding_window_view(padded, TAPS)[::HOP] * np.hanning(TAPS)
    power = np.abs(np.fft.rfft(windows, 2048, axis=1)[:, : 2048 // 8]) ** 2
    return 10 * np.log10(power.T + 1e-3)


def draw(samples: Array, wanted: Array, found: Array, share: float, milliseconds: float) -> object:
    """What there is to hear, and the pitch that the net says beside the one that was sung."""
    figure = new_figure(
        10.4, 6.3, f"{share:.0f} % of the sung frames are followed to a quarter tone, step by step",
        f"A causal net takes 20 ms a step, in {milliseconds:.2f} ms each, and never looks ahead. "
        "Above: a generated voice in noise; below: its pitch.",
    )  # fmt: skip
    seconds = len(wanted) * HOP / RATE
    axis = axis_at(figure, 0.75, 1.2, 9.3, 1.85)
    axis.imshow(spectrum(samples), origin="lower", aspect="auto", extent=(0, seconds, 0, RATE / 8), cmap="magma",
                vmin=5, vmax=45)  # fmt: skip
    axis.set_ylabel("Hz", fontsize=9)
    axis.tick_params(labelsize=8.5)
    axis.set_title("the recording: loudness by frequency", fontsize=10, loc="left")
    axis = plain(axis_at(figure, 0.75, 3.55, 9.3, 2.1), "the pitch, in Hz")
    times = np.arange(len(wanted)) * HOP / RATE
    for classes, name, style in ((wanted, "sung", {"linewidth": 5, "alpha": 0.3, "color": COLOURS[0]}),
                                 (found, "found", {"linewidth": 1.3, "color": COLOURS[1]})):  # fmt: skip
        hertz = np.where(classes == SILENT, np.nan, LOWEST * 2 ** (classes / 24))
        axis.plot(times, hertz, label=name, **style)
    axis.set_yscale("log", base=2)
    axis.set_yticks([110, 165, 220, 330, 440], ["110", "165", "220", "330", "440"])
    axis.set_xlim(0, seconds)
    axis.set_xlabel("seconds", fontsize=9)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8.5, loc="upper right", ncols=2)
    return figure


if __name__ == "__main__":
    main(__doc__, run)
