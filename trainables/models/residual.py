"""A residual network for small images: three stages of basic blocks (He et al. 2016, "Deep residual learning for image
recognition", section 4.2), averaged at the end.

With three blocks per stage, width 16 and ten outputs it is their ResNet-20: 20 layers, 272,474 parameters (0.27 M in
their table 6). A block that halves the sides and doubles the channels has a 1 x 1 convolution as its shortcut (their
option B).
"""

import torch
from torch import nn

from trainables.models import Body, check_size


def body(channels: int, image_size_px: int, *, width: int = 16, depth: int = 3) -> Body:
    """width: channels of the first stage; the others have twice and four times as many. depth: blocks per stage."""
    check_size("residual", image_size_px, smallest_px=16)
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for stage in range(3):
        for block in range(depth):
            layers.append(BasicBlock(before, width * 2**stage, stride=2 if stage and not block else 1))
            before = width * 2**stage
    return Body(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), features=before)


class BasicBlock(nn.Module):
    """relu(x + f(x)), f: 3 x 3 convolution, batch norm, ReLU, 3 x 3 convolution, batch norm."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if (before, 1) != (after, stride):
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        # Not by a stride of the 1 x 1 convolution: of few channels, channels last, its gradient writes beyond its
        # memory and ends the process (torch 2.14.1 on a CPU). This is the same function.
        taken_BCHW = x_BCHW[:, :, :: self.stride, :: self.stride]
        return torch.relu(self.shortcut(taken_BCHW) + self.residual(x_BCHW))
