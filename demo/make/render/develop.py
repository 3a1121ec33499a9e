"""Light to picture: adds the light passes, exposes, and applies faults of light or picture.

The exposure is measured on the room's light without the fault, so it never compensates for a lighting fault.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from make.render.rooms import Room, Spoil

MID_GREY = 0.34
WHITE_POINT = 3.5
LONGEST_RIPPLE = 0.025  # from the centre to the crest, relative to the width of the picture
LUMA = np.array([0.2126, 0.7152, 0.0722])


def develop(room: Room, clean: np.ndarray, stray: np.ndarray, albedo: np.ndarray) -> Image.Image:
    """An 8-bit picture from the radiance without fault and that of stray lights, (rows, columns, 3) each."""
    clean = np.maximum(clean, 0.0)
    light = spoilt_light(clean + stray, albedo, room.spoil) * exposure(clean)
    values = tone(light * 2.0 ** (room.light.exposure_stops + room.spoil.stops))
    values = warped(values, room.spoil, warp_generator(room))
    return Image.fromarray(np.round(values * 255).astype(np.uint8))


def exposure(clean: np.ndarray) -> float:
    """The exposure factor of a camera on automatic for this light."""
    return MID_GREY / np.exp(np.log(clean @ LUMA + 1e-4).mean())


def exposed(room: Room, clean: np.ndarray, stray: np.ndarray) -> np.ndarray:
    """The light of a room as exposed by its camera, without faults except stray lights."""
    clean = np.maximum(clean, 0.0)
    return (clean + stray) * exposure(clean) * 2.0**room.light.exposure_stops


def warp_generator(room: Room) -> np.random.Generator:
    """The random generator for the places where a room's picture is warped."""
    return np.random.default_rng([room.seed & 0xFFFFFFFF, 5])


def spoilt_light(light: np.ndarray, albedo: np.ndarray, spoil: Spoil) -> np.ndarray:
    """The light with faults of flatness, contrast and colour cast."""
    if spoil.flat:
        coloured = albedo.max(-1, keepdims=True) > 0.01  # except what glows, and what is black
        even = albedo * (np.median(light @ LUMA) / max(1e-4, np.median(albedo @ LUMA)))
        light = (1 - spoil.flat) * light + spoil.flat * np.where(coloured, even, light)
    if spoil.contrast:
        luminance = np.maximum(light @ LUMA, 1e-5)
        light = light * ((luminance / np.exp(np.log(luminance).mean())) ** spoil.contrast)[..., None]
    return light * np.asarray(spoil.cast)


def tone(light: np.ndarray) -> np.ndarray:
    """Relative radiance to screen values 0..1: a soft shoulder, then the display gamma."""
    shown = light * (1 + light / WHITE_POINT**2) / (1 + light)
    return np.clip(shown, 0, 1) ** (1 / 2.2)


def warped(values: np.ndarray, spoil: Spoil, rng: np.random.Generator) -> np.ndarray:
    """The picture with local swirls and swellings (`warp`), waves (`ripple`) and stretched patches (`smear`), each 0..1."""
    if not (spoil.warp or spoil.ripple or spoil.smear):
        return values
    return _sampled(values, *sources(values.shape[0], values.shape[1], spoil, rng))


def sources(rows: int, columns: int, spoil: Spoil, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a warped picture comes from: x and y, (rows, columns) each."""
    y, x = np.mgrid[0:rows, 0:columns].astype(float)
    source_x, source_y = x.copy(), y.copy()
    for _ in range(7 if spoil.warp else 0):
        cx, cy = rng.uniform(0.1, 0.9) * columns, rng.uniform(0.2, 0.9) * rows
        radius = rng.uniform(0.14, 0.26) * columns
        weight = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (radius / 1.6) ** 2))
        swirl = spoil.warp * rng.uniform(0.3, 0.8) * rng.choice([-1, 1])
        swell = spoil.warp * rng.uniform(-0.22, 0.32)
        dx, dy = x - cx, y - cy
        angle, grow = swirl * weight, 1 - swell * weight
        source_x += grow * (dx * np.cos(angle) - dy * np.sin(angle)) - dx
        source_y += grow * (dx * np.sin(angle) + dy * np.cos(angle)) - dy
    if spoil.ripple:
        (wave_x, wave_y), (phase_x, phase_y) = rng.uniform(1.5, 4.0, 2), rng.uniform(0, 2 * np.pi, 2)
        source_x += LONGEST_RIPPLE * columns * spoil.ripple * np.sin(2 * np.pi * wave_x * y / rows + phase_x)
        source_y += LONGEST_RIPPLE * columns * spoil.ripple * np.sin(2 * np.pi * wave_y * x / columns + phase_y)
    for _ in range(11 if spoil.smear else 0):
        cx, cy = rng.uniform(0.1, 0.9) * columns, rng.uniform(0.35, 0.95) * rows
        weight = np.exp(-(((x - cx) / (0.17 * columns)) ** 4 + ((y - cy) / (0.19 * rows)) ** 4)) * spoil.smear
        if rng.uniform() < 0.5:
            source_x += weight * (cx - source_x) * 0.97
        else:
            source_y += weight * (cy - source_y) * 0.97
    return source_x, source_y


def _sampled(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear lookup at fractional (x, y), clamped to the picture."""
    rows, columns = values.shape[:2]
    x, y = np.clip(x, 0, columns - 1.001), np.clip(y, 0, rows - 1.001)
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = values[y0, x0] * (1 - fx) + values[y0, x0 + 1] * fx
    bottom = values[y0 + 1, x0] * (1 - fx) + values[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy
