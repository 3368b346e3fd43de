"""Small nets of the usual shapes in PyTorch, with every convolution fastconv's."""

from __future__ import annotations

from typing import Any


def residual_net(torch: Any) -> Any:
    """A small ResNet-18: a block without and one with a stride."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)])
            self.shortcut = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1, stride, bias=False)

        def forward(self, x):
            y = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
            return torch.relu(y + self.shortcut(x))

    return nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Block(16, 16, 1), Block(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def u_net(torch: Any) -> Any:
    """Two levels: padding by name and by other modes, an even kernel, a transposed convolution on the way up."""
    nn = torch.nn

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 16, 3, padding="same")
            self.pool = nn.MaxPool2d(2)
            self.deep = nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect")
            self.even = nn.Conv2d(32, 32, 4, padding="same", dilation=2, groups=2)
            self.up = nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1)
            self.out = nn.Conv2d(32, 4, 3, padding="valid")

        def forward(self, x):
            skip = torch.relu(self.down(x))
            deep = torch.relu(self.even(torch.relu(self.deep(self.pool(skip)))))
            return self.out(torch.cat([skip, self.up(deep)], 1))

    return UNet()


def pair_net(torch: Any) -> Any:
    """A convolution and a transposed one."""
    return torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding="same"), torch.nn.ConvTranspose2d(16, 4, 3, 2))


NETS = {"ResNet": residual_net, "U-Net": u_net, "pair": pair_net}


def swap_all(model: Any) -> Any:
    """The model, accelerated, whatever the times are."""
    import fastconv.torch as bridge
    from fastconv.torch.swap import SWAPS

    bridge.restore(model)
    for module in model.modules():
        module.__class__ = SWAPS.get(type(module), type(module))
    return model
