"""The furniture of the rendered rooms: which CC0 models are used, how large they are, and how to get their meshes.

The models are the Blend Swap CC-0 set of Debian's package `sweethome3d-furniture` (public domain). Placing them needs only
the table below, so rooms can be described, and tested, without the archive.
"""

from __future__ import annotations

import functools
import io
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from make.render import debian
from make.render.meshes import Part, read_mtl, read_obj, turn

PACKAGE = "sweethome3d-furniture"
ARCHIVE = "usr/share/sweethome3d/furniture/BlendSwap-CC-0.sh3f"
TEXTURE_PIXELS = 256


@dataclass(frozen=True)
class Model:
    """One model. `size` is (width, height, depth) in metres, its front is +z after a turn by `facing` degrees.

    `soft` and `hard` name the materials that take the room's textile and wood colours; the others keep their own.
    """

    name: str
    kind: str
    style: str
    size: tuple
    soft: tuple = ()
    hard: tuple = ()
    facing: float = 0.0

    @property
    def width(self) -> float:
        return self.size[0]

    @property
    def height(self) -> float:
        return self.size[1]

    @property
    def depth(self) -> float:
        return self.size[2]


_BED = ("couch", "matress", "pillow", "sheet")
_CHESTERFIELD = ("Buttons", "Surround", "Sit", "Back")
_SHELF = ("Blanc",)

MODELS = {
    model.name: model
    for model in (
        Model("sofa2", "sofa", "classic", (1.86, 0.85, 0.80), ("Fabric", "Trim"), ("Wood",)),
        Model("winchesterSofa", "sofa", "classic", (2.20, 0.80, 0.92), _CHESTERFIELD, ("Feet",)),
        Model("couch", "sofa", "modern", (2.07, 0.82, 0.88), ("Material_Couch", "Grey_Pillow")),
        Model("couch2", "corner sofa", "modern", (2.30, 0.84, 1.60), ("dark_fabric",)),
        Model("L_shaped_sofa", "corner sofa", "modern", (2.34, 0.78, 1.44), ("leather",), ("wood",)),
        Model("armchair2", "armchair", "classic", (0.95, 0.78, 0.83), ("",)),
        Model("modernArmchair", "armchair", "modern", (0.77, 0.84, 0.85), ("Textile",)),
        Model("winchesterArmchair", "armchair", "classic", (1.05, 0.78, 0.90), _CHESTERFIELD, ("Feet",)),
        Model("chair", "chair", "modern", (0.51, 0.84, 0.53), ("Cadeiras",), ("Madeira_cadeira",)),
        Model("chair2", "chair", "classic", (0.42, 0.89, 0.49), ("Schienale_rosso",)),
        Model("oakChair", "chair", "rustic", (0.49, 1.05, 0.58), (), ("RED_OAK.001", "RED_OAK.001_NONE")),
        Model("plasticChair", "chair", "modern", (0.46, 0.84, 0.56), ("Material.001",)),
        Model("osakaChair", "chair", "modern", (0.48, 0.79, 0.52), (), ("Osaka_Mat",)),
        Model("antiqueChair", "chair", "classic", (0.50, 0.98, 0.60), ("Thonet_Seat_Grid.003",), ("Wood_Cherry_Original",)),
        Model("chairWithCushion", "chair", "rustic", (0.44, 0.95, 0.46), ("Cloth",), ("ChairWood",)),
        Model("designChair", "chair", "modern", (0.60, 0.84, 0.58), ("Cushion",)),
        Model("sillaBlanca", "chair", "modern", (0.50, 0.84, 0.56), ("verde",)),
        Model("thonet", "chair", "classic", (0.54, 0.76, 0.56), (), ("Seat", "Tube")),
        Model("armchair", "desk chair", "modern", (0.60, 0.98, 0.62), ("seat", "armrest")),
        Model("oakTable", "table", "rustic", (1.24, 0.74, 1.24), (), ("RED_OAK.001", "RED_OAK.001_NONE")),
        Model("table", "table", "modern", (1.90, 0.74, 0.90), (), ("TableTop", "TableFeet")),
        Model("desk", "desk", "classic", (1.39, 1.05, 0.56), (), ("Desk1",)),
        Model("lbDesk", "desk", "modern", (1.50, 0.72, 0.76), (), ("Desk",)),
        Model("bed1", "bed", "modern", (1.41, 0.95, 2.08), _BED),
        Model("bed2", "bed", "classic", (1.45, 1.08, 2.14), _BED, ("structure",)),
        Model("bedWithTexture", "bed", "modern", (1.98, 0.77, 2.16), ("coverlet", "rightPillow", "leftPillow"), ("bed_venge",)),
        Model("bed3", "bed", "classic", (1.90, 1.10, 2.14), ("Blanquet", "Mattress", "Pillow")),
        Model("bedsideTable2", "bedside table", "modern", (0.46, 0.45, 0.44), (), ("bed_venge",)),
        Model("bookcase", "bookcase", "classic", (0.92, 1.47, 0.37), (), ("",)),
        Model("shelves", "low shelf", "modern", (0.79, 0.79, 0.39), (), _SHELF),
        Model("verticalShelves", "bookcase", "modern", (0.44, 1.85, 0.39), (), _SHELF),
        Model("cupboard", "cupboard", "modern", (1.00, 1.50, 0.39), (), ("White",)),
        Model("wardrobeWithSlidingDoors", "wardrobe", "modern", (1.52, 2.15, 0.64), (), ("Box",)),
        Model(
            "televisionCabinet",
            "cabinet",
            "classic",
            (1.35, 1.60, 0.55),
            (),
            ("Material", *(f"Material.00{i}" for i in range(1, 10))),
        ),
        Model("led_tv", "television", "modern", (0.95, 0.60, 0.17)),
        Model("plant", "plant", "modern", (0.80, 1.17, 0.70), ("pot",)),
        Model("littlePlant", "small plant", "modern", (0.30, 0.28, 0.30)),
        Model("orchids", "small plant", "classic", (0.28, 0.50, 0.31), ("Pot",)),
        Model("desklamp", "table lamp", "classic", (0.26, 0.42, 0.26)),
        Model("pianoAQueue", "piano", "classic", (1.32, 1.03, 1.48)),
        Model("pianoBench", "stool", "classic", (0.62, 0.48, 0.36), ("Leather",), ("Glossy_Coating",)),
        Model("speaker3", "speaker", "modern", (0.22, 0.60, 0.26), (), ("wood",)),
        Model("teddyBear", "toy", "modern", (0.34, 0.33, 0.22)),
    )
}


def of_kind(*kinds: str, style: str | None = None) -> list[Model]:
    """Models of the given kinds in table order; of one style if there are any."""
    found = [model for model in MODELS.values() if model.kind in kinds]
    return [model for model in found if model.style == style] or found


def find_archive() -> Path:
    """Path of the furniture archive, downloaded if missing."""
    return debian.unpacked(PACKAGE, ARCHIVE)


class Catalogue:
    """Meshes and textures of the models, read from the archive once and cached."""

    def __init__(self, archive: Path):
        self._zip = zipfile.ZipFile(archive)
        self._names = set(self._zip.namelist())
        self.parts = functools.cache(self._parts)
        self.texture = functools.cache(self._texture)

    def _parts(self, name: str) -> list[Part]:
        """Parts of the model in metres: standing on y = 0, centred on x = z = 0, front towards +z, at its size."""
        model = MODELS[name]
        folder = f"blendswap-cc-0/{name}"
        text = self._zip.read(f"{folder}/{name}.obj").decode("latin1")
        library = re.search(r"^mtllib (.*)$", text, re.M)
        materials = {}
        if library:
            materials = read_mtl(self._zip.read(f"{folder}/{library[1].strip()}").decode("latin1"), folder)
        parts = [part.moved(turn(model.facing), np.zeros(3)) for part in read_obj(text, materials)]
        corners = np.concatenate([part.positions for part in parts])
        low, high = corners.min(0), corners.max(0)
        scale = np.diag(np.array(model.size) / (high - low))
        shift = -scale @ np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
        return [self._existing_texture(part.moved(scale, shift)) for part in parts]

    def _existing_texture(self, part: Part) -> Part:
        usable = part.material.texture in self._names and part.uv is not None
        return part if usable else replace(part, material=replace(part.material, texture=None))

    def _texture(self, name: str) -> np.ndarray:
        """Linear RGB picture (rows, columns, 3) of a texture inside the archive, downscaled."""
        picture = Image.open(io.BytesIO(self._zip.read(name))).convert("RGB")
        picture.thumbnail((TEXTURE_PIXELS, TEXTURE_PIXELS))
        return (np.asarray(picture, np.float32) / 255.0) ** 2.2
