"""ResNet-32 for images of 32 x 32, as the long-tail papers use it: 0.46 million parameters.

Source: He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evenhand.losses import CosineLinear

WIDTHS, BLOCKS = (16, 32, 64), 5


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return layer


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters: every second pixel, missing channels zero (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.second, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        told = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        before = self.missing // 2
        past = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))
        return torch.relu(told + past)


class ResNet32(nn.Module):
    """(N, 3, 32, 32) to (N, K) logits, or to cosines for losses with margins."""

    def __init__(self, classes: int, *, cosine: bool = False) -> None:
        super().__init__()
        sizes = [(WIDTHS[max(0, stage - (block == 0))], width, 1 + (stage > 0 and block == 0))
                 for stage, width in enumerate(WIDTHS) for block in range(BLOCKS)]  # fmt: skip
        self.stem, self.norm = conv(3, WIDTHS[0]), nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.head = CosineLinear(WIDTHS[-1], classes) if cosine else nn.Linear(WIDTHS[-1], classes)
        if not cosine:
            nn.init.kaiming_normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.norm(self.stem(x)))).mean((2, 3)))
