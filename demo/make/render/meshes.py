"""Triangle meshes: OBJ and MTL files into numpy arrays, and the basic solids that rooms are built from.

Lengths are metres (a furniture file's own unit is its author's; `furniture.py` scales it), y points up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

Vector = Sequence[float] | np.ndarray  # three lengths, in x, y, z


@dataclass(frozen=True)
class Material:
    """How a surface looks: `rgb` is linear reflectance 0..1, `texture` a file or a key of the room's textures."""

    rgb: tuple = (0.6, 0.6, 0.6)
    texture: str | np.ndarray | None = None
    gloss: float = 0.0
    opacity: float = 1.0
    emission: tuple | None = None


@dataclass(frozen=True)
class Part:
    """One mesh with one material: positions (n, 3), faces (m, 3), normals (n, 3) or None, uv (n, 2) or None."""

    positions: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    name: str = ""
    material: Material = field(default_factory=Material)

    def moved(self, matrix: np.ndarray, shift: np.ndarray) -> Part:
        """This part with every position p sent to matrix @ p + shift (normals follow, also under uneven scaling)."""
        normals = self.normals
        if normals is not None:
            normals = normals @ np.linalg.inv(matrix)
            normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return replace(self, positions=self.positions @ np.asarray(matrix).T + shift, normals=normals)

    def looking(self, **changes: Any) -> Part:
        """This part with some fields of its material changed."""
        return replace(self, material=replace(self.material, **changes))


def face_corners(part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, normals (3 m, 3 each) and uv (3 m, 2) of the faces' corners; flat faces where there are no normals."""
    corner = part.faces.ravel()
    positions = part.positions[corner]
    if part.normals is None:
        sides = positions.reshape(-1, 3, 3)
        across = np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0])
        across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
        normals = np.repeat(across, 3, 0)
    else:
        normals = part.normals[corner]
    return positions, normals, np.zeros((len(corner), 2)) if part.uv is None else part.uv[corner]


def turn(degrees: float) -> np.ndarray:
    """Rotation about the vertical axis; positive turns the front (+z) towards +x."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def tip(degrees: float) -> np.ndarray:
    """Rotation about the axis from left to right; positive tips the top to the front (+z)."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def box(size: Vector, centre: Vector, material: Material, name: str = "box") -> Part:
    """A cuboid of `size` (x, y, z) around `centre`, with flat faces and uv in metres."""
    corners: list[np.ndarray] = []
    faces, uvs = [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1, 1):
            start = len(corners)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point = np.zeros(3)
                point[axis], point[u], point[v] = sign, a, b
                corners.append(point * np.asarray(size) / 2 + centre)
                uvs.append((a * size[u] / 2, b * size[v] / 2))
            quad = [(0, 1, 2), (0, 2, 3)] if sign > 0 else [(0, 2, 1), (0, 3, 2)]
            faces += [tuple(start + i for i in triangle) for triangle in quad]
    return Part(np.array(corners, float), np.array(faces), uv=np.array(uvs, float), name=name, material=material)


def sheet(
    origin: Vector,
    along: Vector,
    up: Vector,
    material: Material,
    steps: tuple[int, int] = (1, 1),
    name: str = "sheet",
    uv_scale: float | None = None,
) -> Part:
    """A parallelogram from `origin` spanned by `along` and `up`, cut in steps[0] x steps[1] cells.

    uv runs 0..1 over the sheet, or in units of `uv_scale` metres when that is given. The front is along x up.
    """
    across, upwards = np.meshgrid(np.linspace(0, 1, steps[0] + 1), np.linspace(0, 1, steps[1] + 1))
    s, t = across.ravel(), upwards.ravel()
    along, up = np.asarray(along, float), np.asarray(up, float)
    positions = np.asarray(origin, float) + s[:, None] * along + t[:, None] * up
    row = steps[0] + 1
    first = (np.arange(steps[1])[:, None] * row + np.arange(steps[0])[None, :]).ravel()
    faces = np.concatenate(
        [np.stack([first, first + 1, first + row + 1], 1), np.stack([first, first + row + 1, first + row], 1)]
    )
    lengths = (1.0, 1.0) if uv_scale is None else (np.linalg.norm(along) / uv_scale, np.linalg.norm(up) / uv_scale)
    return Part(positions, faces, uv=np.stack([s * lengths[0], t * lengths[1]], 1), name=name, material=material)


def lathe(
    profile: Sequence[Sequence[float]] | np.ndarray, centre: Vector, material: Material, sides: int = 28, name: str = "lathe"
) -> Part:
    """A solid of revolution about the vertical through `centre`; `profile` is [(radius, height), ...] upwards."""
    profile = np.asarray(profile, float)
    around = np.linspace(0, 2 * np.pi, sides + 1)
    positions = np.stack(
        [profile[:, None, 0] * np.cos(around), np.repeat(profile[:, 1:2], sides + 1, 1), profile[:, None, 0] * np.sin(around)],
        -1,
    ).reshape(-1, 3)
    row = sides + 1
    first = (np.arange(len(profile) - 1)[:, None] * row + np.arange(sides)[None, :]).ravel()
    faces = np.concatenate(
        [np.stack([first, first + row, first + row + 1], 1), np.stack([first, first + row + 1, first + 1], 1)]
    )
    return Part(positions + np.asarray(centre, float), faces, name=name, material=material)


def read_mtl(text: str, folder: str) -> dict[str, Material]:
    """Materials of an MTL file by name; textures become paths inside the archive, relative to `folder`."""
    found: dict[str, dict[str, list[str]]] = {}
    fields = None
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "newmtl":
            fields = found.setdefault(line.split(None, 1)[1].strip(), {})
        elif fields is not None:
            fields[words[0]] = words[1:]
    return {name: _material(fields, folder) for name, fields in found.items()}


def _material(fields: Mapping[str, list[str]], folder: str) -> Material:
    rgb = tuple(min(0.85, float(v)) for v in fields.get("Kd", (0.6, 0.6, 0.6))[:3])
    shine = np.mean([float(v) for v in fields.get("Ks", (0, 0, 0))[:3]]) if float(fields.get("Ns", [0])[0]) > 5 else 0.0
    opacity = float(fields.get("d", fields.get("Tr", [1.0]))[0]) if "d" in fields else 1.0
    texture = str(PurePosixPath(folder) / " ".join(fields["map_Kd"])) if "map_Kd" in fields else None
    return Material(rgb=rgb, texture=texture, gloss=float(shine), opacity=opacity)


def read_obj(text: str, materials: Mapping[str, Material]) -> list[Part]:
    """Parts of an OBJ file, one per material name, polygons cut into fans, smooth normals kept where given."""
    rows: dict[str, list[list[str]]] = {"v": [], "vt": [], "vn": []}
    corners: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word in rows:
            rows[word].append(rest.split()[: 2 if word == "vt" else 3])
        elif word == "usemtl":
            current = rest.strip()
        elif word == "f":
            polygon = rest.split()
            fan = corners.setdefault(current, [])
            for i in range(1, len(polygon) - 1):
                fan += (polygon[0], polygon[i], polygon[i + 1])
    tables = {key: np.array(value, float).reshape(-1, 2 if key == "vt" else 3) for key, value in rows.items()}
    return [_part(name, fan, tables, materials.get(name, Material())) for name, fan in corners.items()]


def _part(name: str, fan: list[str], tables: Mapping[str, np.ndarray], material: Material) -> Part:
    index = {corner: i for i, corner in enumerate(dict.fromkeys(fan))}
    faces = np.array([index[corner] for corner in fan]).reshape(-1, 3)
    triples = np.array([_indices(corner, tables) for corner in index])
    has_uv, has_normals = (triples[:, 1] >= 0).all(), (triples[:, 2] >= 0).all()
    return Part(
        tables["v"][triples[:, 0]],
        faces,
        tables["vn"][triples[:, 2]] if has_normals else None,
        tables["vt"][triples[:, 1]] if has_uv else None,
        name,
        material,
    )


def _indices(corner: str, tables: Mapping[str, np.ndarray]) -> list[int]:
    """'7/2/5' to 0-based (vertex, uv, normal), -1 where absent; negative numbers count from the end."""
    words = (corner.split("/") + ["", ""])[:3]
    sizes = [len(tables[key]) for key in ("v", "vt", "vn")]
    return [int(w) - 1 if w and int(w) > 0 else (n + int(w) if w else -1) for w, n in zip(words, sizes, strict=True)]
