"""A room's description to its picture: builds the scene, traces the light passes and develops them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from make.render import develop, scene, tracer
from make.render.furniture import Catalogue
from make.render.meshes import Material, Part
from make.render.rooms import Room, Spoil

GUIDE_SAMPLES = 4
SUNLIGHT = np.array([1.0, 0.92, 0.8])


@dataclass(frozen=True)
class Care:
    """Paths per pixel and edges per path, for each light of a room."""

    own: tuple[int, int] = (7, 4)
    sun: tuple[int, int] = (5, 4)
    stray: tuple[int, int] = (5, 3)


LITTLE_CARE = Care(own=(3, 4), sun=(2, 4), stray=(2, 3))


@dataclass(frozen=True)
class Lit:
    """A room in its own light: `light`, `albedo` and `normals`, (rows, columns, 3) each, before development."""

    light: np.ndarray
    albedo: np.ndarray
    normals: np.ndarray


class Studio:
    """Draws pictures of `width` x `height` pixels. Consecutive pictures that differ only in their `Spoil` share the light."""

    def __init__(self, catalogue: Catalogue, width: int, height: int, care: Care = Care()):
        self.catalogue, self.width, self.height, self.care = catalogue, width, height, care
        self._room: Room | None = None
        self._lit: Lit | None = None

    def draw(self, room: Room) -> Image.Image:
        """The 8-bit picture (PIL) of a room."""
        return develop.develop(room, *self.passes(room))

    def passes(self, room: Room) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The input of the development: the light without faults, that of stray lights, and the albedo."""
        bare = replace(room, spoil=Spoil())
        if self._lit is None or bare != self._room:
            self._room, self._lit = bare, self.lit(bare)
        lit = self._lit
        stray = self._stray(room, lit) if room.spoil.stray else np.zeros_like(lit.light)
        return lit.light, stray, lit.albedo

    def lit(self, room: Room) -> Lit:
        """The room in its own light and the sun's."""
        parts, seed = scene.parts_of(room, self.catalogue), room.seed % 2**31
        world = self._world(room, parts)
        albedo, normals = tracer.guides(world, GUIDE_SAMPLES, seed)
        light = tracer.trace(world, *self.care.own, seed)
        if room.light.sun is not None:
            sun = tracer.directional(room.light.sun, SUNLIGHT * room.light.sun_level)
            light = light + tracer.trace(self._world(room, _unlit(parts), [sun]), *self.care.sun, seed + 1)
        return Lit(tracer.denoise(light, albedo, normals), albedo, normals)

    def _stray(self, room: Room, lit: Lit) -> np.ndarray:
        beams = [tracer.spot(*beam) for beam in room.spoil.stray]
        world = self._world(room, _unlit(scene.parts_of(room, self.catalogue)), beams)
        light = tracer.trace(world, *self.care.stray, room.seed % 2**31 + 2)
        return tracer.denoise(light, lit.albedo, lit.normals)

    def _world(self, room: Room, parts: Sequence[Part], lights: Sequence[dict[str, Any]] = ()) -> Any:
        view = tracer.View(room.camera.eye, room.camera.target, room.camera.fov, self.width, self.height)
        return tracer.scene(tracer.camera(view), tracer.assemble(parts, self._texture), lights)

    def _texture(self, material: Material) -> np.ndarray | None:
        texture = material.texture
        return self.catalogue.texture(texture) if isinstance(texture, str) else texture


def _unlit(parts: Sequence[Part]) -> list[Part]:
    """The parts for lights from outside or elsewhere: windows open, lamps off."""
    return [part if part.material.emission is None else part.looking(emission=None) for part in parts if part.name != "outlook"]
