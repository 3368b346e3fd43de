"""Small nets made of the blocks of known ones, in PyTorch, for its compiler."""

from __future__ import annotations

from typing import Any


def _unit(torch: Any, inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: Any = None):
    nn = torch.nn
    conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outer)
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return nn.Sequential(conv, norm, *([] if act is None else [act]))


def _net(torch: Any, parts: dict[str, Any], forward: Any) -> Any:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    Net.forward = forward
    return Net()


def mobile(torch: Any) -> Any:
    """Inverted residuals with squeeze and excite, as in MobileNetV3 and EfficientNet."""
    nn = torch.nn
    parts = {
        "stem": _unit(torch, 3, 16, 3, 2, act=nn.Hardswish(inplace=True)), "up": _unit(torch, 16, 32, act=nn.ReLU6()),
        "deep": _unit(torch, 32, 32, 3, 1, 32, nn.SiLU()), "down": _unit(torch, 32, 16),
        "squeeze": nn.Conv2d(32, 8, 1), "excite": nn.Conv2d(8, 32, 1),
        "end": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 10)),
    }  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(self.up(x))
        gate = torch.nn.functional.adaptive_avg_pool2d(y, 1)
        gate = torch.nn.functional.hardsigmoid(self.excite(torch.relu_(self.squeeze(gate))))
        x = x + self.down(y * gate)
        return torch.softmax(self.end(x), 1)

    return _net(torch, parts, forward)


def shuffled(torch: Any) -> Any:
    """ShuffleNet's shuffle of channels, DenseNet's concatenations and VGG's end."""
    nn = torch.nn
    parts = {
        "stem": _unit(torch, 3, 16, 3, act=nn.ReLU(inplace=True)), "side": _unit(torch, 8, 8, 3, groups=8),
        "dense": nn.Sequential(nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 8, 1)),
        "end": nn.Sequential(nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(288, 12), nn.Linear(12, 5)),
    }  # fmt: skip

    def forward(self, x):
        x = torch.max_pool2d(self.stem(x), 3, 2, 1)
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.side(right)), dim=1)
        n, c, h, w = x.size()
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        x = torch.cat([x, self.dense(torch.cat([x, left], 1)), left], 1)
        return self.end(x)

    return _net(torch, parts, forward)


def next_net(torch: Any) -> Any:
    """ConvNeXt's block, and one of a vision transformer behind it."""
    nn = torch.nn
    parts = {
        "stem": nn.Conv2d(3, 16, 4, 4), "deep": nn.Conv2d(16, 16, 7, padding=3, groups=16), "norm": nn.LayerNorm(16),
        "wide": nn.Linear(16, 64), "narrow": nn.Linear(64, 16), "qkv": nn.Linear(16, 48), "out": nn.Linear(16, 16),
        "end": nn.Linear(16, 7),
    }  # fmt: skip

    def forward(self, x):
        f = torch.nn.functional
        x = self.stem(x)
        y = self.narrow(f.gelu(self.wide(self.norm(self.deep(x).permute(0, 2, 3, 1)))))
        x = (x + y.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        n, length, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, length, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, c))
        return self.end(x.mean(1))

    return _net(torch, parts, forward)


def detector(torch: Any) -> Any:
    """A YOLO's blocks: SiLU, split, concatenated poolings, upsampling, a head that is decoded."""
    nn = torch.nn
    parts = {
        "stem": _unit(torch, 3, 16, 3, 2, act=nn.SiLU()), "inner": _unit(torch, 8, 8, 3, act=nn.SiLU()),
        "fuse": _unit(torch, 24, 16, act=nn.SiLU()), "down": _unit(torch, 16, 16, 3, 2, act=nn.SiLU()),
        "pools": nn.MaxPool2d(5, 1, 2), "spp": _unit(torch, 64, 16, act=nn.SiLU()), "up": nn.Upsample(scale_factor=2),
        "head": nn.Conv2d(32, 14, 1),
    }  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        parts = list(x.split((8, 8), 1))
        parts.append(self.inner(parts[-1]) + parts[-1])
        x = self.fuse(torch.cat(parts, 1))
        y = self.down(x)
        pooled = [y, self.pools(y)]
        pooled += [self.pools(pooled[-1]) for _ in range(2)]
        y = self.up(self.spp(torch.cat(pooled, 1)))
        z = self.head(torch.cat([x, y], 1))
        n, _, h, w = z.shape
        z = z.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous()
        grid = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), 2).float()
        xy, wh, rest = z.sigmoid().split((2, 2, 3), 4)
        return torch.cat([(xy * 2 - 0.5 + grid) * 2, (wh * 2) ** 2 * 8, rest], 4).view(n, -1, 7)

    return _net(torch, parts, forward)


def segmenter(torch: Any) -> Any:
    """Pyramid pooling, dilation, transposed convolution and interpolation."""
    nn = torch.nn
    parts = {
        "stem": _unit(torch, 3, 16, 3, 2, act=nn.ReLU()), "wide": nn.Conv2d(16, 16, 3, padding=4, dilation=4),
        "bins": nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(16, 4, 1)) for n in (1, 3, 4)]),
        "norm": nn.GroupNorm(4, 28), "up": nn.ConvTranspose2d(28, 8, 2, 2), "end": nn.Conv2d(8, 5, 3, padding=1),
        "own": nn.InstanceNorm2d(8),
    }  # fmt: skip

    def forward(self, x):
        f = torch.nn.functional
        size = x.shape[-2:]
        x = f.leaky_relu(self.wide(self.stem(x)), 0.1)
        bins = [f.interpolate(b(x), x.shape[2:], mode="bilinear", align_corners=False) for b in self.bins]
        x = self.up(self.norm(torch.cat([x, *bins], 1)))
        x = f.pad(x, (1, 1, 1, 1), "reflect")[:, :, 1:-1, 1:-1]
        return f.interpolate(self.end(x), size=size, mode="bilinear", align_corners=True)

    return _net(torch, parts, forward)


NETS = {"mobile": mobile, "shuffled": shuffled, "ConvNeXt": next_net, "detector": detector, "segmenter": segmenter}
