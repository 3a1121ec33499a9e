"""Pictures of rooms, spoilt and cropped anew at every look, with the labels that go with them.

Faults that development alone makes need no renderer: warps are dialled onto any picture, faults of light onto the light of
practice rooms, where their severity is known then. Crops and mirror images keep a small tower from learning the pictures by
heart.
"""

from __future__ import annotations

from collections.abc import Collection

import develop
import faults
import numpy as np
import rooms
import torch
import torch.nn.functional as F
from labels import CHANNELS, COARSER, WARPED, warp_labels
from raters import true_quality
from rooms import Spoil

import prompt_configs as facts

WARPED_SHARE, ILL_LIT_SHARE = 0.35, 0.45
UNCROPPED_SHARE, SMALLEST_CROP = 0.2, 0.8
DISTORTION, LIGHTING = (list(facts.DIMENSIONS).index(name) for name in ("distortion", "lighting"))
MIDDLE = 3.0  # of the scale of quality


class Looks:
    """Draws looks at pictures of one size, and at rooms whose light is known and which are developed at every look.

    Args:
        pictures: [n, height, width, 3] uint8.
        lit: [m, height, width, 6] float16, light and albedo as ``render_rooms.py`` keeps them; their index goes on after n.
        labels: [n + m, height / 4, width / 4, channels] float16, as ``labels.py`` makes them.
        size: rows and columns of pixels in which the tower sees a picture.
    """

    def __init__(self, pictures: np.ndarray, lit: np.ndarray, labels: np.ndarray, size: tuple[int, int], seed: int):
        self.pictures, self.lit, self.labels, self.size = pictures, lit, labels, size
        self.rng = np.random.default_rng(seed)
        self.any_room = rooms.generate(0)

    def draw(self, index: int, faulty: Collection[int]) -> tuple[torch.Tensor, torch.Tensor, dict[int, float]]:
        """One look at a picture that has faults in the dimensions ``faulty`` already.

        Returns:
            the picture [3, rows, columns], 0..1; its labels [channels, rows / 4, columns / 4]; and the quality, minus
            ``MIDDLE``, in each dimension in which the look was given a fault.
        """
        qualities = {}
        warp = self._dialled(DISTORTION, WARPED_SHARE, faulty, qualities)
        if index < len(self.pictures):
            values = self.pictures[index].astype(np.float32) / 255
        else:
            light, albedo = np.split(self.lit[index - len(self.pictures)].astype(np.float32), 2, axis=-1)
            values = _developed(light, albedo, self._dialled(LIGHTING, ILL_LIT_SHARE, faulty, qualities))
        rows, columns = (side // COARSER for side in self.size)
        x, y = develop.sources(rows, columns, warp, self.rng)
        source = torch.from_numpy(np.stack([(x + 0.5) / columns, (y + 0.5) / rows])).float()
        shift = source - _places(rows, columns)
        scale, corner, mirrored = self._crop()
        seen, known = (
            _sampled(values, (_places(*size) + _resized(shift, size)).clamp(0, 1) * scale + corner, mirrored)
            for values, size in ((values, self.size), (self.labels[index].astype(np.float32), (rows, columns)))
        )
        if mirrored:
            known[CHANNELS.index("normal x")] *= -1
        if warp != Spoil():
            stretched = torch.from_numpy(warp_labels(x, y)).float().permute(2, 0, 1)
            known[-len(WARPED) :] = stretched.flip(2) if mirrored else stretched
        return seen, known, qualities

    def _dialled(self, column: int, share: float, faulty: Collection[int], qualities: dict[int, float]) -> Spoil:
        """Now and then a fault in this dimension, whose quality is entered then; no fault where there is one already."""
        if column in faulty or self.rng.random() >= share:
            return Spoil()
        severity = self.rng.random()
        qualities[column] = float(true_quality(severity)) - MIDDLE
        kinds = faults.DEVELOPED[list(facts.DIMENSIONS)[column]]
        return faults.spoil(self.any_room, kinds, severity, self.rng)[0].spoil

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


def _developed(light: np.ndarray, albedo: np.ndarray, spoil: Spoil) -> np.ndarray:
    """The picture [rows, columns, 3], 0..1, of light as the camera takes it, with faults of light."""
    spoilt = light if spoil == Spoil() else develop.spoilt_light(light, albedo, spoil).astype(np.float32)
    return develop.tone(spoilt * 2.0**spoil.stops)
