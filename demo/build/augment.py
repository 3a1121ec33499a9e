"""Pictures of rooms, spoilt and cropped anew at every look, with the labels that go with them.

Faults of light and warps of the picture need no renderer: they are dialled onto pictures of the other dimensions, where their
severity is known then. Crops and mirror images keep a small tower from learning the pictures by heart.
"""

from __future__ import annotations

from collections.abc import Collection

import develop
import numpy as np
import torch
import torch.nn.functional as F
from faults import BRIGHTEST_STOPS, DARKEST_STOPS, HARSHEST_CONTRAST, TINTS
from labels import CHANNELS, COARSER, WARPED, warp_labels
from raters import true_quality
from rooms import Spoil

import prompt_configs as facts

WARPED_SHARE, ILL_LIT_SHARE = 0.4, 0.25
UNCROPPED_SHARE, SMALLEST_CROP = 0.2, 0.8
DISTORTION, LIGHTING = (list(facts.DIMENSIONS).index(name) for name in ("distortion", "lighting"))
MIDDLE = 3.0  # of the scale of quality


class Looks:
    """Draws looks at pictures of one size.

    Args:
        pictures: [n, height, width, 3] uint8.
        labels: [n, height / 4, width / 4, channels] float16, as ``labels.py`` makes them.
        size: rows and columns of pixels in which the tower sees a picture.
    """

    def __init__(self, pictures: np.ndarray, labels: np.ndarray, size: tuple[int, int], seed: int):
        self.pictures, self.labels, self.size = pictures, labels, size
        self.rng = np.random.default_rng(seed)

    def draw(self, index: int, faulty: Collection[int]) -> tuple[torch.Tensor, torch.Tensor, dict[int, float]]:
        """One look at a picture that has faults in the dimensions ``faulty`` already.

        Returns:
            the picture [3, rows, columns], 0..1; its labels [channels, rows / 4, columns / 4]; and the quality, minus
            ``MIDDLE``, in each dimension in which the look was given a fault.
        """
        rng, qualities = self.rng, {}
        values = self.pictures[index].astype(np.float32) / 255
        spoil = Spoil()
        if DISTORTION not in faulty and rng.random() < WARPED_SHARE:
            severity = rng.random()
            spoil = Spoil(**{str(rng.choice(["warp", "ripple", "smear"])): severity})
            qualities[DISTORTION] = float(true_quality(severity)) - MIDDLE
        elif LIGHTING not in faulty and rng.random() < ILL_LIT_SHARE:
            severity = rng.random()
            values = ill_lit(values, severity, rng)
            qualities[LIGHTING] = float(true_quality(severity)) - MIDDLE
        rows, columns = (side // COARSER for side in self.size)
        x, y = develop.sources(rows, columns, spoil, rng)
        source = torch.from_numpy(np.stack([(x + 0.5) / columns, (y + 0.5) / rows])).float()
        shift = source - _places(rows, columns)
        scale, corner, mirrored = self._crop()
        seen, known = (
            _sampled(values, (_places(*size) + _resized(shift, size)).clamp(0, 1) * scale + corner, mirrored)
            for values, size in ((values, self.size), (self.labels[index].astype(np.float32), (rows, columns)))
        )
        if mirrored:
            known[CHANNELS.index("normal x")] *= -1
        if spoil != Spoil():
            stretched = torch.from_numpy(warp_labels(x, y)).float().permute(2, 0, 1)
            known[-len(WARPED) :] = stretched.flip(2) if mirrored else stretched
        return seen, known, qualities

    def _crop(self) -> tuple[float, torch.Tensor, bool]:
        """Nearly the whole picture, mirrored every other time: its share of the sides, its corner [2, 1, 1] (x and y, 0..1)."""
        scale = 1.0 if self.rng.random() < UNCROPPED_SHARE else self.rng.uniform(SMALLEST_CROP, 1)
        corner = torch.from_numpy(self.rng.uniform(0, 1 - scale, (2, 1, 1))).float()
        return scale, corner, bool(self.rng.random() < 0.5)


def _places(rows: int, columns: int) -> torch.Tensor:
    """The middles of the pixels of a picture: x and y, 0..1, [2, rows, columns]."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.stack([x, y])


def _resized(field: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(field[None], size, mode="bilinear", align_corners=False)[0]


def _sampled(values: np.ndarray, places: torch.Tensor, mirrored: bool) -> torch.Tensor:
    """values [rows, columns, channels] at places [2, rows', columns'] (x and y, 0..1): [channels, rows', columns']."""
    planes = torch.from_numpy(values).permute(2, 0, 1)[None]
    grid = (2 * places - 1).permute(1, 2, 0)[None]
    sampled = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)[0]
    return sampled.flip(2) if mirrored else sampled


def ill_lit(values: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Too dark, too bright, too harsh or tinted: back to light, spoilt there, and developed again."""
    kind = rng.integers(4)
    white, shown = develop.WHITE_POINT**2, values**2.2
    light = white / 2 * (np.sqrt((1 - shown) ** 2 + 4 * shown / white) - (1 - shown))
    tint = 1 + (np.array(TINTS[rng.integers(len(TINTS))]) - 1) * severity
    spoil = (
        Spoil(stops=DARKEST_STOPS * severity),
        Spoil(stops=BRIGHTEST_STOPS * severity),
        Spoil(contrast=HARSHEST_CONTRAST * severity),
        Spoil(cast=tuple(tint)),
    )[kind]
    return develop.tone(develop.spoilt_light(light, None, spoil) * 2.0**spoil.stops).astype(np.float32)
