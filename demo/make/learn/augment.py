"""Data augmentation: pictures of rooms, each time with a new random fault and crop, with their labels.

Faults of the development step need no renderer: warps are applied to any picture, lighting faults to the light of practice
rooms, with known severity. Crops and mirroring keep a small tower from memorising the pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from make.render import develop, faults, generator
from make.render.labels import CHANNELS, COARSER, WARPED, warp_labels
from make.render.raters import true_quality
from make.render.rooms import Spoil
from saiqa import facts

WARPED_SHARE, ILL_LIT_SHARE = 0.5, 0.45
UNCROPPED_SHARE, SMALLEST_CROP = 0.2, 0.8
DISTORTION, LIGHTING = (list(facts.DIMENSIONS).index(name) for name in ("distortion", "lighting"))
MIDDLE = 3.0  # of the scale of quality


@dataclass(frozen=True)
class Look:
    """One augmented view of a picture.

    Attributes:
        picture: [3, rows, columns], 0..1.
        qualities: the quality, minus ``MIDDLE``, in each dimension in which a fault was added.
        warp: the geometric fault that was added, as sampling positions: x and y on a grid of a quarter of the resolution,
            (rows / 4, columns / 4) each; None without.
        crop: the part of the picture: its share of the sides, its corner [2, 1, 1] (x and y, 0..1), whether mirrored.
    """

    picture: torch.Tensor
    qualities: dict[int, float]
    warp: tuple[np.ndarray, np.ndarray] | None
    crop: tuple[float, torch.Tensor, bool]


class Looks:
    """Draws looks at pictures of one size, and at rooms with known light, which are developed anew each time.

    Args:
        pictures: [n, height, width, 3] uint8.
        lit: [m, height, width, 6] float16, light and albedo as ``render_rooms.py`` stores them; their indices start at n.
        labels: [n + m, height / 4, width / 4, channels] float16, as ``labels.py`` makes them.
        size: rows and columns of the pixels that the tower gets.
    """

    def __init__(self, pictures: np.ndarray, lit: np.ndarray, labels: np.ndarray, size: tuple[int, int]):
        self.pictures, self.lit, self.all_labels, self.size = pictures, lit, labels, size
        self.any_room = generator.generate(0)

    def draw(self, index: int, faulty: Collection[int], rng: np.random.Generator) -> Look:
        """One look at a picture that already has faults in the dimensions ``faulty``."""
        qualities: dict[int, float] = {}
        spoil = self._dialled(DISTORTION, WARPED_SHARE, faulty, qualities, rng)
        warp = develop.sources(*self._coarse, spoil, rng) if spoil != Spoil() else None
        if index < len(self.pictures):
            values = torch.from_numpy(self.pictures[index]).float() / 255
        else:
            light, albedo = torch.from_numpy(self.lit[index - len(self.pictures)]).float().split(3, dim=-1)
            ill_lit = self._dialled(LIGHTING, ILL_LIT_SHARE, faulty, qualities, rng)
            values = torch.from_numpy(developed(light.numpy(), albedo.numpy(), ill_lit))
        crop = _crop(rng)
        return Look(_sampled(values, _sources(self.size, warp, crop)), qualities, warp, crop)

    def labels(self, index: int, look: Look) -> torch.Tensor:
        """The labels [channels, rows / 4, columns / 4] of a look at that picture."""
        mirrored = look.crop[-1]
        known = _sampled(torch.from_numpy(self.all_labels[index]).float(), _sources(self._coarse, look.warp, look.crop))
        if mirrored:
            known[CHANNELS.index("normal x")] *= -1
        if look.warp is not None:
            stretched = torch.from_numpy(warp_labels(*look.warp)).float().permute(2, 0, 1)
            known[-len(WARPED) :] = stretched.flip(2) if mirrored else stretched
        return known

    @property
    def _coarse(self) -> tuple[int, int]:
        return self.size[0] // COARSER, self.size[1] // COARSER

    def _dialled(
        self, column: int, share: float, faulty: Collection[int], qualities: dict[int, float], rng: np.random.Generator
    ) -> Spoil:
        """Sometimes a fault in this dimension, with its quality added to ``qualities``; never if there already is one."""
        if column in faulty or rng.random() >= share:
            return Spoil()
        severity = rng.random()
        qualities[column] = float(true_quality(severity)) - MIDDLE
        kinds = faults.DEVELOPED[list(facts.DIMENSIONS)[column]]
        return faults.spoil(self.any_room, kinds, severity, rng)[0].spoil


def developed(light: np.ndarray, albedo: np.ndarray, spoil: Spoil) -> np.ndarray:
    """The picture [rows, columns, 3], 0..1, of the camera's light, with lighting faults."""
    spoilt = light if spoil == Spoil() else develop.spoilt_light(light, albedo, spoil).astype(np.float32)
    return develop.tone(spoilt * 2.0**spoil.stops)


def _crop(rng: np.random.Generator) -> tuple[float, torch.Tensor, bool]:
    """A crop of nearly the whole picture, mirrored half of the time: see ``Look``."""
    scale = 1.0 if rng.random() < UNCROPPED_SHARE else rng.uniform(SMALLEST_CROP, 1)
    corner = torch.from_numpy(rng.uniform(0, 1 - scale, (2, 1, 1))).float()
    return scale, corner, bool(rng.random() < 0.5)


def _sources(
    size: tuple[int, int], warp: tuple[np.ndarray, np.ndarray] | None, crop: tuple[float, torch.Tensor, bool]
) -> torch.Tensor:
    """Where in the picture each pixel of a look of this size comes from: x and y, 0..1, [2, rows, columns]."""
    scale, corner, mirrored = crop
    places = _places(*size)
    if warp is not None:
        rows, columns = warp[0].shape
        source = torch.from_numpy(np.stack([(warp[0] + 0.5) / columns, (warp[1] + 0.5) / rows])).float()
        places = (places + _resized(source - _places(rows, columns), size)).clamp(0, 1)
    places = places * scale + corner
    return places.flip(2) if mirrored else places


@functools.cache
def _places(rows: int, columns: int) -> torch.Tensor:
    """The pixel centres of a picture: x and y, 0..1, [2, rows, columns]."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.stack([x, y])


def _resized(field: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(field[None], size, mode="bilinear", align_corners=False)[0]


def _sampled(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """values [rows, columns, channels] at places [2, rows', columns'] (x and y, 0..1): [channels, rows', columns']."""
    grid = (2 * places - 1).permute(1, 2, 0)[None]
    return F.grid_sample(values.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=False)[0]
