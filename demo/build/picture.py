"""A room's description to its picture: builds the scene, traces the light passes and develops them."""

from dataclasses import dataclass, replace

import develop
import numpy as np
import scene
import tracer
from rooms import Spoil

# Paths a pixel and edges a path.
OWN_LIGHT, SUN, STRAY = (7, 4), (5, 4), (5, 3)
GUIDE_SAMPLES = 4
SUNLIGHT = np.array([1.0, 0.92, 0.8])


@dataclass(frozen=True)
class Lit:
    """A room in its own light: `light`, `albedo` and `normals`, (rows, columns, 3) each, not developed."""

    light: np.ndarray
    albedo: np.ndarray
    normals: np.ndarray


class Studio:
    """Draws pictures of `width` x `height` pixels. Pictures in a row that differ in their `Spoil` only share the light."""

    def __init__(self, catalogue, width, height):
        self.catalogue, self.width, self.height = catalogue, width, height
        self._room = self._lit = None

    def draw(self, room):
        """The 8-bit picture (PIL) of a room."""
        bare = replace(room, spoil=Spoil())
        if bare != self._room:
            self._room, self._lit = bare, self.lit(bare)
        lit = self._lit
        stray = self._stray(room, lit) if room.spoil.stray else np.zeros_like(lit.light)
        return develop.develop(room, lit.light, stray, lit.albedo)

    def lit(self, room):
        """The room in its own light and the sun's."""
        parts, seed = scene.parts_of(room, self.catalogue), room.seed % 2**31
        world = self._world(room, parts)
        albedo, normals = tracer.guides(world, GUIDE_SAMPLES, seed)
        light = tracer.trace(world, *OWN_LIGHT, seed)
        if room.light.sun is not None:
            sun = tracer.directional(room.light.sun, SUNLIGHT * room.light.sun_level)
            light = light + tracer.trace(self._world(room, _unlit(parts), [sun]), *SUN, seed + 1)
        return Lit(tracer.denoise(light, albedo, normals), albedo, normals)

    def _stray(self, room, lit):
        beams = [tracer.spot(*beam) for beam in room.spoil.stray]
        world = self._world(room, _unlit(scene.parts_of(room, self.catalogue)), beams)
        light = tracer.trace(world, *STRAY, room.seed % 2**31 + 2)
        return tracer.denoise(light, lit.albedo, lit.normals)

    def _world(self, room, parts, lights=()):
        view = tracer.View(room.camera.eye, room.camera.target, room.camera.fov, self.width, self.height)
        return tracer.scene(tracer.camera(view), tracer.assemble(parts, self._texture), lights)

    def _texture(self, material):
        texture = material.texture
        return self.catalogue.texture(texture) if isinstance(texture, str) else texture


def _unlit(parts):
    """The parts for lights from outside or elsewhere: windows open, lamps off."""
    return [part if part.material.emission is None else part.looking(emission=None) for part in parts if part.name != "outlook"]
