"""Encoders: torchvision's residual networks, for any number of channels and for small inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

STEMS = ("small", "standard")
HEADS = ("linear", "mlp")


class Encoder(nn.Module):
    """Normalisation, a residual network, and a head.

    `features(x)` is the representation that downstream tasks use; `forward(x)` the embedding that the
    objective compares. Inputs (N, C, H, W) are normalised here, after the views, so that a view's clamp to
    [0, 1] keeps its meaning.

    Args:
        net: a torchvision ResNet. Its `fc` is not used.
        embedding_dim: size of the embedding.
        head: "linear" (the paper: one layer) or "mlp" (Linear-ReLU-Linear).
        mean, std: per-channel statistics of the training data; None leaves the input as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: ResNet,
        embedding_dim: int = 128,
        head: str = "linear",
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}.")
        channels = net.conv1.in_channels
        self.register_buffer("mean", _per_channel(mean, 0.0, channels))
        self.register_buffer("std", _per_channel(std, 1.0, channels))
        self.net = net
        self.net.fc = nn.Identity()
        self.feature_dim: int = net.inplanes
        self.head = (
            nn.Linear(self.feature_dim, embedding_dim)
            if head == "linear"
            else nn.Sequential(
                nn.Linear(self.feature_dim, self.feature_dim), nn.ReLU(), nn.Linear(self.feature_dim, embedding_dim)
            )
        )

    def feature_maps(self, x: Tensor) -> Tensor:
        """The last feature maps (N, feature_dim, h, w), before pooling."""
        net = self.net
        y = net.maxpool(net.relu(net.bn1(net.conv1((x - self.mean) / self.std))))
        return net.layer4(net.layer3(net.layer2(net.layer1(y))))

    def features(self, x: Tensor, pool: bool = True) -> Tensor:
        """The representation: pooled (N, feature_dim), or with `pool=False` the flattened last feature maps."""
        maps = self.feature_maps(x)
        return maps.mean((2, 3)) if pool else maps.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """The embedding (N, embedding_dim), not normalised."""
        return self.head(self.features(x))


def resnet18(in_channels: int = 3, width: int = 64, stem: str = "small", **encoder: object) -> Encoder:
    """ResNet-18 (He et al. 2015). `width` is the number of channels of the first stage: 64 in the paper.

    `stem` "small" is a 3x3 convolution of stride 1 without max-pooling, for sides of about 32; "standard" is
    torchvision's 7x7 of stride 2 with max-pooling. Further arguments go to `Encoder`.
    """
    return Encoder(_resnet(BasicBlock, [2, 2, 2, 2], in_channels, width, stem), **encoder)  # type: ignore[arg-type]


def resnet50(in_channels: int = 3, width: int = 64, stem: str = "small", **encoder: object) -> Encoder:
    """ResNet-50. Arguments as for `resnet18`; `feature_dim` is 32 times the width."""
    return Encoder(_resnet(Bottleneck, [3, 4, 6, 3], in_channels, width, stem), **encoder)  # type: ignore[arg-type]


ENCODERS = {"resnet18": resnet18, "resnet50": resnet50}


def _resnet(block: type[BasicBlock | Bottleneck], layers: list[int], in_channels: int, width: int, stem: str) -> ResNet:
    """torchvision's ResNet with its stem and its stages built anew for the given channels and width."""
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}.")
    with torch.device("meta"):
        net = ResNet(block, layers)
    kernel, stride = (3, 1) if stem == "small" else (7, 2)
    net.conv1 = nn.Conv2d(in_channels, width, kernel, stride, padding=kernel // 2, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    if stem == "small":
        net.maxpool = nn.Identity()
    net.inplanes = width
    net.layer1 = net._make_layer(block, width, layers[0])
    net.layer2 = net._make_layer(block, 2 * width, layers[1], stride=2)
    net.layer3 = net._make_layer(block, 4 * width, layers[2], stride=2)
    net.layer4 = net._make_layer(block, 8 * width, layers[3], stride=2)
    net.fc = nn.Identity()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _per_channel(values: Sequence[float] | Tensor | None, default: float, channels: int) -> Tensor:
    """Statistics as a (1, C, 1, 1) tensor."""
    tensor = torch.full((channels,), default) if values is None else torch.as_tensor(values, dtype=torch.float32)
    if tensor.shape != (channels,):
        raise ValueError(f"mean and std need one value for each of the {channels} channels, got {tuple(tensor.shape)}.")
    return tensor.clone().view(1, channels, 1, 1)
