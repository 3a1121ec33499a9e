"""A room's description to its picture: builds the scene, traces the light passes and develops them."""

import develop
import numpy as np
import scene
import tracer

OWN_LIGHT_SAMPLES, OWN_LIGHT_DEPTH = 7, 4
SUN_SAMPLES, SUN_DEPTH = 5, 4
STRAY_SAMPLES, STRAY_DEPTH = 5, 3
FLAT_GUIDE_SAMPLES = 6  # there the albedo is the picture
SUNLIGHT = np.array([1.0, 0.92, 0.8])


def draw(room, catalogue, width, height, seed):
    """The 8-bit picture (PIL) of a room, `width` x `height` pixels; `seed` feeds the sampling."""

    def textures(material):
        texture = material.texture
        return catalogue.texture(texture) if isinstance(texture, str) else texture

    parts = scene.parts_of(room, catalogue)
    meshes = tracer.assemble(parts, textures)
    sensor = tracer.camera(tracer.View(room.camera.eye, room.camera.target, room.camera.fov, width, height))
    world = tracer.scene(sensor, meshes)
    albedo, normals = tracer.guides(world, FLAT_GUIDE_SAMPLES if room.spoil.flat else 1, seed)
    light = tracer.trace(world, OWN_LIGHT_SAMPLES, seed, OWN_LIGHT_DEPTH)
    unlit = _unlit(parts, meshes, textures)
    if room.light.sun is not None:
        sun = tracer.directional(room.light.sun, SUNLIGHT * room.light.sun_level)
        light = light + tracer.trace(tracer.scene(sensor, unlit, [sun]), SUN_SAMPLES, seed + 1, SUN_DEPTH)
    light = tracer.denoise(light, albedo, normals)
    stray = np.zeros_like(light)
    if room.spoil.stray:
        spots = [tracer.spot(*beam) for beam in room.spoil.stray]
        stray = tracer.trace(tracer.scene(sensor, unlit, spots), STRAY_SAMPLES, seed + 2, STRAY_DEPTH)
        stray = tracer.denoise(stray, albedo, normals)
    return develop.develop(room, light, stray, albedo)


def _unlit(parts, meshes, textures):
    """The meshes for lights from outside or elsewhere: windows open, lamps off."""
    kept = []
    for part, mesh in zip(parts, meshes, strict=True):
        if part.material.emission is None:
            kept.append(mesh)
        elif part.name != "outlook":
            kept += tracer.assemble([part.looking(emission=None)], textures)
    return kept
