"""Layers of nets, as rows: those that the sets of layers of other nets are made of.

A row is (channels, outputs, size, kernel, options); it keeps its size at stride 1 unless `padding` says otherwise.
Sizes are those at which the nets are published or usually run.
"""

from __future__ import annotations

from typing import Any, Final

from .cases import Axes

Spec = tuple[int, int, Axes, Axes, dict[str, Any]]


def _of(*rows: tuple[Any, ...], **common: Any) -> list[Spec]:
    """Rows of four or five numbers, the fifth a stride, and what all of them share."""
    return [(*row[:4], {**({"stride": row[4]} if len(row) > 4 else {}), **common}) for row in rows]


def _depthwise(*rows: tuple[Any, ...], **common: Any) -> list[Spec]:
    """Rows of (channels, size, kernel) and a stride."""
    return [spec for c, *rest in rows for spec in _of((c, c, *rest), groups=c, **common)]


# Redmon's line: YOLOv5s (Jocher et al. 2020), YOLOX-tiny (Ge et al. 2021) and YOLOv8n (2023) at 640 x 640.
YOLO: Final = [
    *_of((3, 32, 640, 6, 2), padding=2),
    *_of((3, 16, 640, 3, 2), (16, 32, 320, 3, 2), (16, 16, 160, 3), (32, 64, 160, 3, 2), (32, 32, 80, 3),
         (48, 32, 160, 1), (64, 128, 80, 3, 2), (64, 64, 40, 3), (192, 64, 80, 1), (384, 128, 40, 1), (128, 128, 20, 3),
         (256, 128, 20, 1), (64, 80, 80, 3), (80, 80, 80, 1), (128, 255, 80, 1), (96, 96, 52, 3), (512, 256, 20, 1),
         (384, 256, 20, 1)),
]  # fmt: skip
# Tan and Le (2019), B0 and B3.
EFFICIENTNET: Final = [
    *_of((3, 32, 224, 3, 2)), *_depthwise((32, 112, 3)), *_of((32, 16, 112, 1), (16, 96, 112, 1)),
    *_depthwise((96, 112, 3, 2), (144, 56, 5, 2)), *_of((24, 144, 56, 1), (240, 40, 28, 1)),
    *_depthwise((240, 28, 5), (240, 28, 3, 2), (480, 14, 3), (480, 14, 5)),
    *_of((40, 240, 28, 1), (480, 80, 14, 1), (112, 672, 14, 1), (1152, 192, 7, 1), (320, 1280, 7, 1)),
    *_depthwise((672, 14, 5, 2), (1152, 7, 5), (1152, 7, 3), (288, 38, 5)),
    *_of((48, 288, 38, 1), (816, 136, 19, 1), (10, 240, 1, 1), (1152, 48, 1, 1)),
]  # fmt: skip
# Liu et al. (2022), T.
CONVNEXT: Final = [
    *_of((3, 96, 224, 4, 4), padding=0), *_depthwise((96, 56, 7)), *_of((96, 384, 56, 1), (384, 96, 56, 1)),
    *_of((96, 192, 56, 2, 2), padding=0), *_depthwise((192, 28, 7)), *_of((192, 768, 28, 1), (768, 192, 28, 1)),
    *_of((384, 768, 14, 2, 2), padding=0), *_depthwise((384, 14, 7), (768, 7, 7)),
    *_of((384, 1536, 14, 1), (768, 3072, 7, 1), (3072, 768, 7, 1)),
]  # fmt: skip
# Huang et al. (2017), 121.
DENSENET: Final = _of(
    (64, 128, 56, 1), (128, 32, 56, 3), (224, 128, 56, 1), (256, 128, 56, 1), (128, 32, 28, 3), (320, 128, 28, 1),
    (512, 256, 28, 1), (128, 32, 14, 3), (640, 128, 14, 1), (896, 128, 14, 1), (1024, 512, 14, 1), (128, 32, 7, 3),
    (544, 128, 7, 1), (992, 128, 7, 1),
)
# Szegedy et al. (2015), GoogLeNet; (2016), v3 at 299 x 299.
INCEPTION: Final = [
    *_of((3, 32, 299, 3, 2), (32, 32, 149, 3), padding=0), *_of((32, 64, 147, 3), (64, 80, 73, 1)),
    *_of((80, 192, 73, 3), padding=0), *_of((48, 64, 35, 5), (96, 96, 35, 3), (64, 96, 35, 3), (288, 64, 35, 1)),
    *_of((288, 384, 35, 3, 2), padding=0),
    *_of((128, 128, 17, (1, 7)), (192, 192, 17, (7, 1)), (160, 192, 17, (1, 7)), (768, 192, 17, 1),
         (384, 384, 8, (1, 3)), (384, 384, 8, (3, 1)), (1280, 320, 8, 1), (2048, 192, 8, 1), (16, 32, 28, 5),
         (32, 128, 14, 5), (480, 16, 14, 1), (24, 64, 14, 5)),
]  # fmt: skip
# Xie et al. (2017), 50-32x4d; Radosavovic et al. (2020), RegNetX-400MF and RegNetY-1.6GF.
RESNEXT: Final = [
    *_of((128, 128, 56, 3), (256, 256, 56, 3, 2), (256, 256, 28, 3), (512, 512, 28, 3, 2), (512, 512, 14, 3),
         (1024, 1024, 14, 3, 2), (1024, 1024, 7, 3), groups=32),
    *_of((32, 32, 112, 3, 2), groups=2), *_of((64, 64, 56, 3, 2), groups=4), *_of((160, 160, 14, 3), groups=10),
    *_of((400, 400, 14, 3, 2), groups=25), *_of((120, 120, 28, 3), groups=5), *_of((336, 336, 14, 3), groups=14),
    *_of((888, 888, 14, 3, 2), groups=37),
]  # fmt: skip
# Chen et al. (2017, 2018), DeepLab; Yu and Koltun (2016); Ronneberger et al. (2015), U-Net.
SEGMENTATION: Final = [
    *_of((256, 256, 33, 3), dilation=6), *_of((512, 256, 33, 3), dilation=12), *_of((512, 256, 33, 3), dilation=18),
    *_of((256, 256, 65, 3), dilation=24), *_of((512, 512, 33, 3), dilation=2), *_of((256, 256, 65, 3), dilation=4),
    *_of((64, 64, 33, 3), dilation=12), *_depthwise((960, 33, 3), dilation=2), *_depthwise((576, 33, 3), dilation=12),
    *_of((2048, 256, 33, 1), (304, 256, 65, 3), (256, 21, 65, 1), (64, 64, 160, 3), (128, 64, 160, 3), (64, 2, 160, 1)),
    *_of((128, 64, 80, 2, 2), (256, 128, 40, 2, 2), (512, 256, 20, 2, 2), (64, 32, 112, 2, 2), transposed=True,
         padding=0),
    *_of((21, 21, 33, 4, 2), transposed=True, padding=1),
]  # fmt: skip
# Dong et al. (2014, 2016), SRCNN and FSRCNN; Shi et al. (2016), ESPCN; Ledig et al. (2017); Lim et al. (2017), EDSR.
SUPERRES: Final = [
    *_of((1, 64, 128, 9), (64, 32, 128, 5), (64, 32, 128, 1), (32, 1, 128, 5), (1, 64, 160, 5), (64, 32, 160, 3),
         (32, 9, 160, 3), (1, 56, 96, 5), (56, 12, 96, 1), (12, 12, 96, 3)),
    *_of((56, 1, 96, 9, 3), transposed=True, padding=3),
    *_of((64, 64, 96, 3), (64, 256, 96, 3), (64, 3, 192, 9), (3, 64, 96, 9), (64, 64, 180, 3), (64, 3, 192, 3)),
]  # fmt: skip
# Radford et al. (2016), DCGAN; Isola et al. (2017), pix2pix; Zhu et al. (2017), CycleGAN; Karras et al. (2019).
GAN: Final = [
    *_of((100, 512, 1, 4), transposed=True, padding=0),
    *_of((512, 256, 4, 4, 2), (256, 128, 8, 4, 2), (128, 64, 16, 4, 2), (64, 3, 32, 4, 2), transposed=True, padding=1),
    *_of((3, 64, 64, 4, 2), (64, 128, 32, 4, 2), (128, 256, 16, 4, 2), (3, 64, 256, 4, 2), (64, 128, 128, 4, 2),
         (256, 512, 32, 4), padding=1),
    *_of((64, 128, 32, 5, 2), (512, 512, 8, 3), (512, 512, 4, 3), (64, 3, 128, 7), (256, 256, 64, 3),
         (128, 64, 128, 3)),
    *_of((256, 128, 32, 4, 2), (128, 64, 64, 4, 2), transposed=True, padding=1),
]  # fmt: skip
# Krizhevsky et al. (2012); Ding et al. (2022), RepLKNet; Peng et al. (2017), large kernels; filters of images.
LARGE: Final = [
    *_of((3, 64, 224, 11, 4), padding=2), *_of((64, 192, 27, 5), (32, 32, 56, 5), (96, 96, 28, 5), (64, 128, 56, 5, 2)),
    *_of((64, 64, 56, 7), (32, 32, 112, 7), (32, 32, 56, 9), (64, 64, 28, 9), (32, 32, 56, 11), (128, 128, 28, 7)),
    *_depthwise((128, 56, 31), (256, 28, 29), (512, 14, 27), (1024, 7, 13), (64, 56, 9), (384, 14, 21)),
    *_of((1, 1, 512, 15), (1, 1, 512, 31), (1, 8, 256, 15)),
    *_of((256, 256, 16, (1, 15)), (21, 21, 16, (15, 1))),
]  # fmt: skip
# Kong et al. (2020), HiFi-GAN; Luo and Mesgarani (2019), Conv-TasNet; Baevski et al. (2020); Kim et al. (2018), CREPE.
AUDIO: Final = [
    *[spec for c, n in ((128, 2048), (64, 8192)) for k in (3, 7, 11) for d in (1, 5)
      for spec in _of((c, c, (n,), (k,)), dilation=d)],
    *_of((256, 128, (256,), (16,), 8), transposed=True, padding=4),
    *_of((128, 64, (2048,), (4,), 2), transposed=True, padding=1),
    *_of((80, 512, (256,), (7,)), (64, 1, (16384,), (7,)), (128, 512, (3200,), (1,)), (512, 128, (3200,), (1,))),
    *_depthwise((512, (3200,), (3,)), (256, (1000,), (31,))), *_depthwise((512, (3200,), (3,)), dilation=8),
    *_of((1, 512, (16000,), (10,), 5), (512, 512, (3199,), (3,), 2), (512, 512, (799,), (2,), 2), padding=0),
    *_of((1, 256, (16000,), (16,), 8), (1, 128, (1024,), (512,), 4)), *_of((128, 16, (256,), (64,))),
]  # fmt: skip
# Every kernel and dilation of HiFi-GAN at half a second of 16 kHz, as wide as generators, separators and vocoders are.
SEQUENCES: Final = [
    spec for i, (k, d) in enumerate((k, d) for k in (3, 5, 7, 11) for d in (1, 3, 5))
    for c in ((512, 128) if i % 2 else (64, 256)) for spec in _of((c, c, (8000,), (k,)), dilation=d)
]  # fmt: skip
# Isensee et al. (2021), nnU-Net; Milletari et al. (2016); Hara et al. (2018); Carreira and Zisserman (2017), I3D;
# Feichtenhofer (2020), X3D; Tran et al. (2018), R(2+1)D.
VOLUMES: Final = [
    *_of((16, 16, (64,) * 3, (3,) * 3), (32, 32, (48,) * 3, (3,) * 3), (64, 64, (32,) * 3, (3,) * 3),
         (128, 128, (24,) * 3, (3,) * 3), (256, 256, (16,) * 3, (3,) * 3), (32, 64, (48,) * 3, (3,) * 3, 2),
         (128, 256, (24,) * 3, (3,) * 3, 2), (64, 128, (32,) * 3, (1,) * 3), (480, 192, (8, 14, 14), (1,) * 3),
         (64, 64, (16, 56, 56), (1, 3, 3)), (64, 64, (16, 56, 56), (3, 1, 1)), (128, 128, (8, 28, 28), (1, 3, 3)),
         (128, 128, (8, 28, 28), (3, 1, 1))),
    *_depthwise((54, (16, 56, 56), (3,) * 3), (108, (16, 28, 28), (3,) * 3), (108, (16, 28, 28), (3,) * 3, 2),
                (216, (8, 14, 14), (3,) * 3)),
    *_of((64, 32, (16,) * 3, (2,) * 3, 2), (256, 128, (8,) * 3, (2,) * 3, 2), transposed=True, padding=0),
    *_of((1, 16, (64,) * 3, (3,) * 3), (32, 3, (48,) * 3, (1,) * 3), (3, 64, (8, 112, 112), (3, 7, 7), 2)),
]  # fmt: skip
# The larger end of the three sets before: dense large kernels, volumes, and the Fourier transform of frames and back.
HEAVY: Final = [
    *_of((128, 128, 112, 7), (128, 128, 28, 11), (64, 64, 112, 9), (128, 128, 56, 11)),
    *_of((16, 16, (96,) * 3, (3,) * 3), (32, 32, (96,) * 3, (3,) * 3)),
    *_of((1026, 1, (256,), (1024,), 256), transposed=True, padding=384),
    *_of((1, 1026, (65536,), (1024,), 256), padding=384),
]
# Layers that see one pixel: the last ones of AlexNet, VGG, ResNet and MobileNet, and those of small perceptrons.
DENSE: Final = [
    spec
    for batch in (1, 8, 16)
    for spec in _of((4096, 4096, 1, 1), (2048, 1000, 1, 1), (512, 512, 1, 1), (1280, 1000, 1, 1), (784, 128, 1, 1),
                    batch=batch)
]  # fmt: skip

NETS: Final[dict[str, list[Spec]]] = {
    "yolo": YOLO, "efficientnet": EFFICIENTNET, "convnext": CONVNEXT, "densenet": DENSENET, "inception": INCEPTION,
    "resnext": RESNEXT, "segmentation": SEGMENTATION, "superres": SUPERRES, "gan": GAN, "large": LARGE,
    "audio": AUDIO, "sequences": SEQUENCES, "volumes": VOLUMES,
    "heavy": HEAVY, "dense": DENSE,
}  # fmt: skip
