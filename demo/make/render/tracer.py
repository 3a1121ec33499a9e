"""Parts with materials to linear pictures, through mitsuba's path tracer (LLVM) and Intel's denoiser.

Only this file imports mitsuba. Pictures are float32 (rows, columns, 3), in relative radiance. Compiling a kernel with LLVM
takes longer than tracing a small picture, so parts are merged until scenes differ only in their data: then kernels are
compiled once and later read from drjit's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from make.render import llvm

llvm.provide()

import drjit
import mitsuba as mi
import mitsuba_oidn

from make.render.meshes import Material, Part, face_corners

mi.set_variant("llvm_ad_rgb")
drjit.set_thread_count(0)  # only the caller's thread: pictures are traced in parallel, by processes

GLASS_BELOW = 0.6
GLOSSY_ABOVE = 0.25


@dataclass(frozen=True)
class View:
    """Camera: `eye` and `target` in metres, horizontal field of view in degrees, picture `width` x `height`."""

    eye: tuple
    target: tuple
    fov: float
    width: int
    height: int


# Scenes are padded to multiples of these with invisible specks, so that a few kernels serve all.
PICTURE_STEP, GLOSSY_PICTURE_STEP = 12, 6
FAR = 20.0  # the specks lie in two corners of a cube around any room, which also gives all scenes the same extent
SPECK = Part(positions=np.array([(-FAR,) * 3, (FAR,) * 3, (FAR, FAR, FAR - 1e-3)]), faces=np.array([(0, 1, 2)]))
GREY = np.full((4, 4, 3), 0.5, np.float32)


def _bitmap(picture: np.ndarray) -> dict[str, Any]:
    return {
        "type": "bitmap",
        "raw": True,
        "wrap_mode": "repeat",
        "bitmap": mi.Bitmap(np.ascontiguousarray(picture, np.float32)),
    }


def _matt(reflectance: dict[str, Any]) -> dict[str, Any]:
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": reflectance}}


def _glossy(reflectance: dict[str, Any]) -> dict[str, Any]:
    inner = {"type": "principled", "base_color": reflectance, "roughness": 0.35, "specular": 0.5}
    return {"type": "twosided", "bsdf": inner}


def _mesh(parts: Sequence[Part], bsdf: dict[str, Any], radiance: dict[str, Any] | None = None) -> Any:
    """Mitsuba's mesh of parts that look alike except for their plain colour, which is stored per vertex."""
    corners = [face_corners(part) for part in parts]
    positions, normals, uv = (np.concatenate([corner[i] for corner in corners]) for i in range(3))
    colours = np.repeat([part.material.rgb for part in parts], [len(corner[0]) for corner in corners], 0)
    properties = mi.Properties()
    properties["mesh_bsdf"] = mi.load_dict(bsdf, parallel=False)
    if radiance is not None:
        properties["mesh_emitter"] = mi.load_dict({"type": "area", "radiance": radiance}, parallel=False)
    mesh = mi.Mesh(
        "parts", len(positions), len(positions) // 3, props=properties, has_vertex_normals=True, has_vertex_texcoords=True
    )
    mesh.add_attribute("vertex_color", 3, np.ravel(colours).astype(np.float32))
    values = mi.traverse(mesh)
    values["vertex_positions"] = np.ravel(positions).astype(np.float32)
    values["faces"] = np.arange(len(positions), dtype=np.uint32)
    values["vertex_normals"] = np.ravel(normals).astype(np.float32)
    values["vertex_texcoords"] = np.ravel(uv).astype(np.float32)
    values.update()
    return mesh


def directional(towards: Iterable[float], radiance: Iterable[float]) -> dict[str, Any]:
    """Parallel light travelling along `towards`; irradiance in the units of the room's other lights."""
    return {
        "type": "directional",
        "direction": [float(v) for v in towards],
        "irradiance": {"type": "rgb", "value": [float(v) for v in radiance]},
    }


def spot(origin: Iterable[float], target: Iterable[float], intensity: Iterable[float], cutoff: float) -> dict[str, Any]:
    """A narrow beam with a hard edge, `cutoff` degrees from its axis."""
    return {
        "type": "spot",
        "to_world": mi.ScalarTransform4f().look_at(list(origin), list(target), [0.01, 1, 0.02]),
        "intensity": {"type": "rgb", "value": [float(v) for v in intensity]},
        "cutoff_angle": float(cutoff),
        "beam_width": float(cutoff) * 0.85,
    }


def camera(view: View) -> Any:
    """Mitsuba's sensor for the view."""
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": view.fov,
            "fov_axis": "x",
            "near_clip": 0.02,
            "to_world": mi.ScalarTransform4f().look_at(list(view.eye), list(view.target), [0, 1, 0]),
            "film": {
                "type": "hdrfilm",
                "width": view.width,
                "height": view.height,
                "pixel_format": "rgb",
                "component_format": "float32",
                "rfilter": {"type": "box"},
            },
            "sampler": {"type": "independent"},
        },
        parallel=False,
    )


def assemble(parts: Iterable[Part], textures: Callable[[Material], np.ndarray | None]) -> list[Any]:
    """Mitsuba's meshes of the parts; `textures(material)` gives the picture of a texture, or None.

    The order, which affects the sampling, depends only on the parts.
    """
    plain = {"type": "mesh_attribute", "name": "vertex_color"}
    glass: list[Part] = []
    matt: list[Part] = []
    glossy: list[Part] = []
    lights = []
    pictures: dict[tuple[bool, int], tuple[np.ndarray, list[Part]]] = {}  # by gloss and picture
    for part in parts:
        material = part.material
        picture = textures(material) if material.texture is not None else None
        if material.opacity < GLASS_BELOW:
            glass.append(part)
        elif material.emission is not None:
            lights.append((part, picture))
        elif picture is not None:
            pictures.setdefault((material.gloss > GLOSSY_ABOVE, id(picture)), (picture, []))[1].append(part)
        else:
            (glossy if material.gloss > GLOSSY_ABOVE else matt).append(part)
    meshes = [
        _mesh([*matt, SPECK], _matt(plain)),
        _mesh(glossy or [SPECK], _glossy(plain)),
        _mesh(glass or [SPECK], {"type": "thindielectric"}),
    ]
    for shiny, look, step in ((False, _matt, PICTURE_STEP), (True, _glossy, GLOSSY_PICTURE_STEP)):
        found = [(picture, alike) for (gloss, _), (picture, alike) in pictures.items() if gloss == shiny]
        found += [(GREY, [SPECK])] * (-len(found) % step)
        meshes += [_mesh(alike, look(_bitmap(picture))) for picture, alike in found]
    return meshes + _lights(lights)


def _lights(lights: Iterable[tuple[Part, np.ndarray | None]]) -> list[Any]:
    """Glowing parts, one mesh for each colour of plain ones."""
    meshes = []
    plain: dict[tuple, list[Part]] = {}
    for part, picture in lights:
        if picture is None:
            assert part.material.emission is not None
            plain.setdefault(part.material.emission, []).append(part)
        else:
            radiance = _bitmap(picture * np.asarray(part.material.emission, np.float32))
            meshes.append(_mesh([part], _matt({"type": "rgb", "value": 0.0}), radiance))
    for emission, parts in plain.items():
        radiance = {"type": "rgb", "value": [float(v) for v in emission]}
        meshes.append(_mesh(parts, _matt({"type": "mesh_attribute", "name": "vertex_color"}), radiance))
    return meshes


def scene(sensor: Any, meshes: Iterable[Any], lights: Iterable[dict[str, Any]] = ()) -> Any:
    """Mitsuba's scene of a camera, meshes and further lights."""
    shapes = {f"part{i}": mesh for i, mesh in enumerate(meshes)}
    return mi.load_dict(
        {
            "type": "scene",
            "sensor": sensor,
            **shapes,
            **{f"light{i}": _as_data(mi.load_dict(light)) for i, light in enumerate(lights)},
        },
        parallel=False,
    )


def _as_data(light: Any) -> Any:
    """The light with its numbers as data, not as constants of a separate kernel."""
    values = mi.traverse(light)
    for name in list(values.keys()):
        value = values[name]
        drjit.make_opaque(value)
        values[name] = value
    values.update()
    return light


def trace(world: Any, samples: int, depth: int, seed: int) -> np.ndarray:
    """Radiance (rows, columns, 3) of a scene from `samples` paths per pixel of up to `depth` edges, not denoised."""
    integrator = mi.load_dict({"type": "path", "max_depth": depth, "rr_depth": 3}, parallel=False)
    return np.array(mi.render(world, integrator=integrator, seed=int(seed), spp=samples))


def guides(world: Any, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Albedo and normals, (rows, columns, 3) each, of what the camera sees first; 0 where a surface has none."""
    picture = _seen_first(world, "albedo:albedo,normal:sh_normal", samples, seed)
    return picture[..., :3], picture[..., 3:6]


def first_hits(world: Any, seed: int) -> list[np.ndarray]:
    """The hit of one ray per pixel: albedo, normal, position in metres (3 columns each) and distance (1 column)."""
    picture = _seen_first(world, "albedo:albedo,normal:sh_normal,position:position,distance:depth", 1, seed)
    return np.split(picture, (3, 6, 9), axis=-1)


def hidden(world: Any, positions: np.ndarray, light: Iterable[float]) -> np.ndarray:
    """Whether something stands between each of the positions (rows, columns, 3) and a point of light."""
    points = mi.Point3f(np.ascontiguousarray(positions.reshape(-1, 3).T, np.float32))
    ray = mi.Ray3f(points, mi.Point3f([float(v) for v in light]) - points, 1 - 1e-4, 0.0, [])
    return np.array(world.ray_test(ray)).reshape(positions.shape[:2])


def _seen_first(world: Any, aovs: str, samples: int, seed: int) -> np.ndarray:
    """Mitsuba's variables `aovs` of what the camera sees first, (rows, columns, all of them); 0 where one is undefined."""
    integrator = mi.load_dict({"type": "aov", "aovs": aovs}, parallel=False)
    return np.nan_to_num(mi.render(world, integrator=integrator, seed=int(seed), spp=samples))


def denoise(radiance: np.ndarray, albedo: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The radiance without its sampling noise."""
    clean = [np.ascontiguousarray(a, np.float32) for a in (np.nan_to_num(radiance), np.clip(albedo, 0, 1), normals)]
    return np.asarray(mitsuba_oidn.denoise(clean[0], albedo=clean[1], normal=clean[2], hdr=True))
