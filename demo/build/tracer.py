"""Parts with materials to linear pictures, through mitsuba's scalar path tracer and Intel's denoiser.

Only this file imports mitsuba. Pictures are float32 (rows, columns, 3), in relative radiance.
"""

import os
from dataclasses import dataclass

os.environ.setdefault("MI_DEFAULT_VARIANT", "scalar_rgb")

import drjit
import mitsuba as mi
import mitsuba_oidn
import numpy as np

mi.set_variant("scalar_rgb")
drjit.set_thread_count(0)  # the caller's own thread only: pictures run side by side, in processes

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


def _bitmap(picture):
    return {"type": "bitmap", "raw": True, "wrap_mode": "repeat",
            "bitmap": mi.Bitmap(np.ascontiguousarray(picture, np.float32))}


def _colour(material, textures):
    """Reflectance as mitsuba wants it: a picture where the material's texture has one, else a plain colour."""
    picture = textures(material) if material.texture is not None else None
    if picture is not None:
        return _bitmap(picture)
    return {"type": "rgb", "value": [float(v) for v in material.rgb]}


def _bsdf(material, textures):
    if material.opacity < GLASS_BELOW:
        return {"type": "thindielectric"}
    reflectance = _colour(material, textures)
    if material.gloss > GLOSSY_ABOVE:
        inner = {"type": "principled", "base_color": reflectance, "roughness": 0.35, "specular": 0.5}
    else:
        inner = {"type": "diffuse", "reflectance": reflectance}
    return {"type": "twosided", "bsdf": inner}


def _mesh(part, textures):
    properties = mi.Properties()
    properties["mesh_bsdf"] = mi.load_dict(_bsdf(part.material, textures), parallel=False)
    if part.material.emission is not None:
        picture = textures(part.material) if part.material.texture is not None else None
        radiance = {"type": "rgb", "value": [float(v) for v in part.material.emission]}
        if picture is not None:
            radiance = _bitmap(picture * np.asarray(part.material.emission, np.float32))
        properties["mesh_emitter"] = mi.load_dict({"type": "area", "radiance": radiance}, parallel=False)
    mesh = mi.Mesh(part.name or "part", len(part.positions), len(part.faces), props=properties,
                   has_vertex_normals=part.normals is not None, has_vertex_texcoords=part.uv is not None)
    values = mi.traverse(mesh)
    values["vertex_positions"] = np.ravel(part.positions).astype(np.float32)
    values["faces"] = np.ravel(part.faces).astype(np.uint32)
    if part.normals is not None:
        values["vertex_normals"] = np.ravel(part.normals).astype(np.float32)
    if part.uv is not None:
        values["vertex_texcoords"] = np.ravel(part.uv).astype(np.float32)
    values.update()
    return mesh


def directional(towards, radiance):
    """Parallel light travelling along `towards`; irradiance in the units of the room's other lights."""
    return {"type": "directional", "direction": [float(v) for v in towards],
            "irradiance": {"type": "rgb", "value": [float(v) for v in radiance]}}


def spot(origin, target, intensity, cutoff):
    """A narrow beam with a hard edge, `cutoff` degrees from its axis."""
    return {"type": "spot", "to_world": mi.ScalarTransform4f().look_at(list(origin), list(target), [0.01, 1, 0.02]),
            "intensity": {"type": "rgb", "value": [float(v) for v in intensity]},
            "cutoff_angle": float(cutoff), "beam_width": float(cutoff) * 0.85}


def camera(view):
    """Mitsuba's sensor for the view."""
    return mi.load_dict({
        "type": "perspective", "fov": view.fov, "fov_axis": "x", "near_clip": 0.02,
        "to_world": mi.ScalarTransform4f().look_at(list(view.eye), list(view.target), [0, 1, 0]),
        "film": {"type": "hdrfilm", "width": view.width, "height": view.height, "pixel_format": "rgb",
                 "component_format": "float32", "rfilter": {"type": "box"}},
        "sampler": {"type": "independent"}}, parallel=False)


def assemble(parts, textures):
    """Mitsuba's meshes, in the order of the parts; `textures(material)` gives the picture of a texture, or None."""
    return [_mesh(part, textures) for part in parts]


def scene(sensor, meshes, lights=()):
    """Mitsuba's scene of a camera, meshes and further lights."""
    shapes = {f"part{i}": mesh for i, mesh in enumerate(meshes)}
    return mi.load_dict({"type": "scene", "sensor": sensor, **shapes,
                         **{f"light{i}": light for i, light in enumerate(lights)}}, parallel=False)


def trace(world, samples, seed, depth):
    """Radiance (rows, columns, 3) of a scene from `samples` paths a pixel of up to `depth` edges, not denoised."""
    integrator = mi.load_dict({"type": "path", "max_depth": depth, "rr_depth": 3}, parallel=False)
    return np.array(mi.render(world, integrator=integrator, seed=int(seed), spp=samples))


def guides(world, samples, seed):
    """Albedo and normals, (rows, columns, 3) each, of what the camera sees first."""
    integrator = mi.load_dict({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}, parallel=False)
    picture = np.array(mi.render(world, integrator=integrator, seed=int(seed), spp=samples))
    return picture[..., :3], picture[..., 3:6]


def denoise(radiance, albedo, normals):
    """The radiance without its sampling noise."""
    clean = [np.ascontiguousarray(np.nan_to_num(a), np.float32) for a in (radiance, np.clip(albedo, 0, 1), normals)]
    return np.asarray(mitsuba_oidn.denoise(clean[0], albedo=clean[1], normal=clean[2], hdr=True))
