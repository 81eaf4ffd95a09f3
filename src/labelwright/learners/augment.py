"""Random flips, shifts and holes, drawn for a whole minibatch at once on the device where the pictures lie. Needs torch.

Pictures are bytes (n, height, width, channels) until they are gathered: one read makes minibatch, flip and shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labelwright.errors import SettingsError


@dataclass(frozen=True)
class Augment:
    """What is done to each training picture. flip: mirrored left to right half of the time (not for digits, letters,
    signs). crop: shifted by up to so many pixels each way, the border mirrored. cutout: side of a grey hole.

    >>> Augment.named("flip+crop2+cutout8")
    Augment(flip=True, crop=2, cutout=8)
    """

    flip: bool = False
    crop: int = 0
    cutout: int = 0

    @staticmethod
    def named(text: str) -> Augment:
        """From words joined by "+": flip, crop<pixels>, cutout<side>; "none" or "". Raises SettingsError."""
        flip, sizes = False, {"crop": 0, "cutout": 0}
        for word in text.replace(" ", "").split("+") if text not in ("", "none") else ():
            name, digits = word.rstrip("0123456789"), word[len(word.rstrip("0123456789")) :]
            if word == "flip":
                flip = True
            elif name in sizes:
                sizes[name] = int(digits or {"crop": "2", "cutout": "8"}[name])
            else:
                raise SettingsError(f"the augmentation {word!r} is unknown; expected flip, crop2, cutout8, joined by +")
        return Augment(flip, sizes["crop"], sizes["cutout"])

    def gather(self, pictures: Tensor, index: Tensor, grey: Tensor | None = None) -> Tensor:
        """(b, channels, height, width) of the kind of the pictures, channels last in memory: the pictures (n, height, width,
        channels) at ``index`` (b,), each flipped, shifted and holed on its own. grey: (channels,) that holes are filled with; 128
        when None."""
        height, width = pictures.shape[1:3]
        count, device = len(index), pictures.device
        if self.crop >= min(height, width):
            raise SettingsError(
                f"crop{self.crop} shifts pictures of {height} x {width} out of sight; take a smaller number"
            )
        if not (self.flip or self.crop):
            out = pictures[index]
        else:
            down, across = self._shifts(height, count, device), self._shifts(width, count, device)
            if self.flip:
                mirrored = torch.rand(count, device=device) < 0.5
                across = torch.where(mirrored[:, None], across.flip(1), across)
            flat = (index[:, None] * height + down)[:, :, None] * width + across[:, None, :]
            out = pictures.view(-1, pictures.shape[3]).index_select(0, flat.view(-1))
            out = out.view(count, height, width, -1)
        if self.cutout:
            out = self._holed(out, grey)
        return out.permute(0, 3, 1, 2)

    def _shifts(self, side: int, count: int, device: torch.device) -> Tensor:
        """(count, side) where each pixel of a shifted line comes from, mirrored at the border."""
        line = torch.arange(side, device=device)
        if not self.crop:
            return line.expand(count, side)
        moved = line + torch.randint(-self.crop, self.crop + 1, (count, 1), device=device)
        moved = moved.abs()
        return torch.where(moved >= side, 2 * (side - 1) - moved, moved)

    def _holed(self, out: Tensor, grey: Tensor | None) -> Tensor:
        count, height, width, _ = out.shape
        top, left = (torch.randint(0, side, (count, 1), device=out.device) for side in (height, width))
        lines = [torch.arange(side, device=out.device) for side in (height, width)]
        inside = [
            (line >= at - self.cutout // 2) & (line < at - self.cutout // 2 + self.cutout)
            for line, at in zip(lines, (top, left), strict=True)
        ]
        hole = inside[0][:, :, None] & inside[1][:, None, :]
        fill = torch.full((out.shape[3],), 128) if grey is None else grey
        return torch.where(hole[..., None], fill.to(out), out)


def views(pictures: Tensor, count: int, *, flip: bool) -> list[Tensor]:
    """Up to ``2 * count`` looks at pictures (n, channels, height, width) to be averaged: shifted by a pixel to the
    corners, and mirrored with ``flip``.

    >>> len(views(torch.zeros(1, 1, 8, 8), 5, flip=True))
    10
    """
    moves = ((0, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))[: max(count, 1)]
    out = [pictures if move == (0, 0) else _moved(pictures, *move) for move in moves]
    return out + [one.flip(3) for one in out] if flip else out


def _moved(pictures: Tensor, down: int, right: int) -> Tensor:
    """Shifted, the last line and column repeated."""
    height, width = pictures.shape[2:]
    rows = (torch.arange(height, device=pictures.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=pictures.device) - right).clamp(0, width - 1)
    return pictures[:, :, rows][:, :, :, columns]
