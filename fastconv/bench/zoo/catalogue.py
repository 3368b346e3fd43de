"""The nets of the zoo, what was published about their sizes, and which of them are only reported.

No constant of this library may be chosen by looking at the speed of a net that is held out. Which ones are follows
from names alone: the families whose layers the layer benchmark times (MobileNet, ResNet, VGG) are tuned on; of the
other families in alphabetical order the third, the sixth, and so on are, too, and all others are held out, as are
families that came later. Nets of one family share blocks, so that a whole family is on one side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import classifiers, detectors, mobile, pictures, signals
from .graph import Buildable

GIVEN: Final = "given"  # the family of nets from files of one's own, which are on neither side
TUNED_LAYERS: Final = ("MobileNet", "ResNet", "VGG")
LATER: Final = ("EEGNet",)  # families that came when the halves were made: held out, so that no other changes sides


@dataclass(frozen=True)
class ZooNet:
    """A net: how it is built for a batch, and its published millions of parameters and of multiply-adds, if any."""

    name: str
    family: str
    build: Callable[[int], Buildable]
    parameters: float | None = None
    macs: float | None = None
    columns: int | None = None  # axis of the result along which scales differ, each of which is checked by itself

    @property
    def held_out(self) -> bool:
        return self.family in HELD_OUT

    @property
    def side(self) -> str:
        """What tables call it."""
        return GIVEN if self.family == GIVEN else "held out" if self.held_out else "tuned on"


# Parameters and multiply-adds: torchvision's tables where it has the net; else the paper or the code that is cited
# where the net is built. Those of detectors are published for 640 x 640 and counted at the size used here.
NETS: Final = [
    ZooNet("MobileNetV1", "MobileNet", mobile.mobilenet_v1, 4.232, 569),
    ZooNet("MobileNetV2", "MobileNet", mobile.mobilenet_v2, 3.504872, 300.8),
    ZooNet("MobileNetV3-large", "MobileNet", mobile.mobilenet_v3, 5.483032, 217),
    ZooNet("EfficientNet-B0", "EfficientNet", mobile.efficientnet_b0, 5.288548, 386),
    ZooNet("ShuffleNetV2-1.0", "ShuffleNet", mobile.shufflenet_v2, 2.278604, 145),
    ZooNet("SqueezeNet-1.1", "SqueezeNet", mobile.squeezenet, 1.235496, 349),
    ZooNet("GoogLeNet", "Inception", classifiers.googlenet, 6.624904, 1500),
    ZooNet("Inception-v3", "Inception", classifiers.inception_v3, 23.834568, 5710),
    ZooNet("DenseNet-121", "DenseNet", classifiers.densenet121, 7.978856, 2830),
    ZooNet("ResNet-18", "ResNet", classifiers.resnet18, 11.689512, 1814),
    ZooNet("ResNet-50", "ResNet", classifiers.resnet50, 25.557032, 4089),
    ZooNet("ResNeXt-50", "ResNet", classifiers.resnext50, 25.028904, 4230),
    ZooNet("ConvNeXt-T", "ConvNeXt", classifiers.convnext_tiny, 28.589128, 4460),
    ZooNet("RegNetY-400MF", "RegNet", classifiers.regnet_y_400mf, 4.344144, 402),
    ZooNet("VGG-16", "VGG", classifiers.vgg16, 138.357544, 15470),
    ZooNet("YOLOv5s", "YOLO", detectors.yolov5s, 7.235389, 16.5e3 / 8, 2),
    ZooNet("YOLOv8n", "YOLO", detectors.yolov8n, 3.157200, 8.75e3 / 8, 1),
    ZooNet("YOLOX-tiny", "YOLO", detectors.yolox_tiny, 5.056, 6.45e3 / 2, 2),
    ZooNet("U-Net", "U-Net", pictures.unet, 7.763041),
    ZooNet("U-Net 3-D", "U-Net", pictures.unet_3d),
    ZooNet("ESPCN", "ESPCN", pictures.espcn),
    ZooNet("DnCNN", "DnCNN", pictures.dncnn, 0.556),
    ZooNet("SRGAN generator", "SRGAN", pictures.srgan),
    ZooNet("DCGAN generator", "DCGAN", pictures.dcgan, 3.576704),
    ZooNet("Style transfer", "Style transfer", pictures.style, 1.679235),
    ZooNet("Conv-TasNet", "Conv-TasNet", signals.conv_tasnet, 5.1),
    ZooNet("wav2vec2 encoder", "wav2vec 2.0", signals.wav2vec_encoder, 4.200448),
    ZooNet("HiFi-GAN V2", "HiFi-GAN", signals.hifigan, 0.92),
    ZooNet("CREPE-tiny", "CREPE", signals.crepe_tiny, 0.486552),
    ZooNet("EEGNet-8,2", "EEGNet", signals.eegnet, 0.002258),
    ZooNet("CRNN", "CRNN", signals.crnn, 8.3),
    ZooNet("SVTR-tiny", "SVTR", signals.svtr_tiny),
]


def held_out_families() -> frozenset[str]:
    """By the rule above."""
    others = sorted({net.family for net in NETS} - {*TUNED_LAYERS, *LATER}, key=str.casefold)
    return frozenset({*LATER, *(family for i, family in enumerate(others) if i % 3 != 2)})


HELD_OUT: Final = held_out_families()


def select_zoo(only: str | None = None, held_out: bool | None = None) -> list[ZooNet]:
    """The nets whose name or family holds the text `only`, of one side or (None) of both."""
    return [
        net for net in NETS
        if (only is None or only in net.name or only in net.family) and held_out in (None, net.held_out)
    ]  # fmt: skip
