"""The networks of the paper and of the compact profile, small and plain. Everything here needs torch.

Inputs are (n, channels, height, width) for images and (n, d) for vectors; outputs are (n, K) logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from labelwright.errors import SettingsError

Shape = tuple[int, int, int]
"""height, width, channels."""


def make_network(name: str, *, shape: Shape | None, width: int, classes: int) -> nn.Module:
    """A freshly initialised network.

    name: one of :data:`NETWORKS`. shape: of an image, or None for vectors. width: of a vector. classes: K.
    Raises SettingsError for an unknown name, or a network of images asked for vectors.

    >>> import torch
    >>> net = make_network("compact", shape=(32, 32, 3), width=3072, classes=10)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if name not in NETWORKS:
        raise SettingsError(f"the network {name!r} is unknown; expected one of {', '.join(NETWORKS)}")
    if name in VECTOR_NETWORKS:
        return NETWORKS[name](width, classes)
    if shape is None:
        raise SettingsError(
            f"the network {name!r} reads images, but the rows are vectors of {width} numbers; name their shape with "
            f"image_shape=(height, width, channels), or take one of {', '.join(sorted(VECTOR_NETWORKS))}"
        )
    height, wide, channels = shape
    if min(height, wide) < 8:
        raise SettingsError(
            f"the network {name!r} needs images of 8 x 8 pixels or more; these have {height} x {wide}. Take 'mlp'"
        )
    return NETWORKS[name](channels, classes)


def _block(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    """3 x 3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class Compact(nn.Module):
    """The compact profile (methods section 9): a stride-2 stem, 3 x 3 convolutions with max-pooling, global max-pool,
    dropout 0.2, linear. widths: channels of each convolution."""

    def __init__(self, channels: int, classes: int, *, widths: Sequence[int]):
        super().__init__()
        layers, before = list[nn.Module](), channels
        for place, after in enumerate(widths):
            layers += _block(before, after, stride=2 if place == 0 else 1)
            if 0 < place < len(widths) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            before = after
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, K) logits."""
        return self.head(self.dropout(self.features(x).amax((2, 3))))  # type: ignore[no-any-return]


class _Residual(nn.Module):
    """Two convolutions and a shortcut without parameters (He et al. 2016, option A: subsampled, padded with zeros)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(*_block(before, after, stride))
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
        self.stride, self.grown = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        short = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.grown:
            short = F.pad(short, (0, 0, 0, 0, self.grown // 2, self.grown - self.grown // 2))
        return F.relu(self.second(self.first(x)) + short)


class ResNet(nn.Module):
    """The residual network for small images of He et al. 2016, section 4.2: 6n + 2 layers, 16/32/64 channels.

    depth: 20 or 44, or any 6n + 2.
    """

    def __init__(self, channels: int, classes: int, *, depth: int):
        super().__init__()
        layers, before = _block(channels, 16), 16
        for stage, after in enumerate((16, 32, 64)):
            for place in range((depth - 2) // 6):
                layers.append(_Residual(before, after, stride=2 if stage and not place else 1))
                before = after
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, K) logits."""
        return self.head(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


class Plain(nn.Module):
    """Pairs of 3 x 3 convolutions, each pair followed by 2 x 2 max-pooling, then dense layers.

    widths: channels of each pair. hidden: units of the dense layers before the last. dropout: after each pair and
    dense layer. norm: batch norm after each convolution.
    """

    def __init__(self, channels: int, classes: int, *, widths: Sequence[int], hidden: Sequence[int], dropout: float):
        super().__init__()
        layers, before = list[nn.Module](), channels
        for after in widths:
            layers += [*_block(before, after), *_block(after, after), nn.MaxPool2d(2), nn.Dropout(dropout)]
            before = after
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(4)
        dense, before = list[nn.Module](), before * 16
        for after in hidden:
            dense += [nn.Linear(before, after), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            before = after
        self.head = nn.Sequential(*dense, nn.Linear(before, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(n, K) logits."""
        x = self.features(x)
        if x.shape[2:] != (4, 4):
            x = self.pool(x)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Dense(nn.Module):
    """Fully connected layers with leaky ReLU (the paper's Expert: 512, 512, 512, K). hidden: units of each layer but the last."""

    def __init__(self, width: int, classes: int, *, hidden: Sequence[int], dropout: float = 0.0):
        super().__init__()
        layers, before = list[nn.Module](), width
        for after in hidden:
            layers += [nn.Linear(before, after), nn.LeakyReLU(inplace=True)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            before = after
        self.layers = nn.Sequential(*layers, nn.Linear(before, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(n, K) logits."""
        return self.layers(x)  # type: ignore[no-any-return]

    def last(self) -> list[nn.Parameter]:
        """Weights of the last layer."""
        return list(self.layers[-1].parameters())


NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "compact": lambda c, k: Compact(c, k, widths=(32, 64, 128, 128)),
    "compact-small": lambda c, k: Compact(c, k, widths=(32, 48, 96, 96)),
    "resnet20": lambda c, k: ResNet(c, k, depth=20),
    "resnet44": lambda c, k: ResNet(c, k, depth=44),
    "vgg6": lambda c, k: Plain(c, k, widths=(64, 128, 256), hidden=(), dropout=0.2),
    "cnn12": lambda c, k: Plain(c, k, widths=(64, 128, 192), hidden=(256, 256), dropout=0.25),
    "mlp": lambda d, k: Dense(d, k, hidden=(256, 128), dropout=0.1),
    "expert": lambda d, k: Dense(d, k, hidden=(512, 512, 512)),
}
"""Name -> (channels or vector width, K) -> network. vgg6: six convolutions; cnn12: the paper's Amateur, 3 x [conv, conv,
pool] and three dense layers, 12 in all; expert: the paper's Expert, four layers."""

VECTOR_NETWORKS = frozenset({"mlp", "expert"})
