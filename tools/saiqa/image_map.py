"""Where in a picture a score comes from: the map of one image and dimension, and how far it may be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

METHODS = ("hidden", "replaced", "painted", "gradient", "pixels", "alike", "towards")  # ``saiqa.model.maps`` says what they do
# The way that is taken for each dimension unless another is asked for; how they were chosen is in docs/how-sure.md.
DEFAULTS = {"distortion": "towards", "harmony": "towards", "layout": "gradient", "lighting": "pixels"}

# Faults for which the map of ``DEFAULTS`` is ahead of the picture's middle, and those for which it is not, by pointing or by
# area under the ROC curve: `python benchmarks/explain_study.py`, whose figures are in docs/how-sure.md.
FOUND = {
    "distortion": ("bent furniture", "wrong materials"),
    "harmony": ("clashing furniture",),
    "layout": ("floating furniture",),
    "lighting": ("stray light",),
}
BLIND = {"harmony": ("mixed styles",), "layout": ("sunken furniture", "furniture of a wrong scale")}


UNCHECKED = "maps were checked on the demo's checkpoint alone, not on this one"


def standing(dimension: str, demo: bool) -> str:
    """How far maps of a dimension may be trusted, in one line; ``demo``: whether they are of the demo's checkpoint."""
    unchecked = "" if demo else f"{UNCHECKED}; "
    blind = f", and no better for {', '.join(BLIND[dimension])}" if dimension in BLIND else ""
    ahead = " and ".join(FOUND[dimension])
    return f"{unchecked}on the demo, maps of {dimension} were ahead of the picture's middle for {ahead}{blind}"


@dataclass(frozen=True)
class ImageMap:
    """What lowers the score of one image in one dimension.

    Attributes:
        name: the path as given, or ``image 1`` where it came without one.
        dimension: the dimension.
        score: the image's score from 1 (bad) to 5 (excellent).
        map: points of the scale by which each region lowers the score [rows][columns]; below 0 where it raises it.
        method: how the model was asked, one of ``saiqa.model.maps.METHODS``.
    """

    name: str
    dimension: str
    score: float
    map: list[list[float]]
    method: str

    @property
    def worst(self) -> tuple[int, int]:
        """Row and column of the region that lowers the score most."""
        places = ((row, column) for row, values in enumerate(self.map) for column in range(len(values)))
        return max(places, key=lambda place: self.map[place[0]][place[1]])

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of that region in a picture of so many pixels."""
        (row, column), rows, columns = self.worst, len(self.map), len(self.map[0])
        left, right = (width * edge // columns for edge in (column, column + 1))
        top, bottom = (height * edge // rows for edge in (row, row + 1))
        return left, top, right, bottom

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"image": self.name, **{key: value for key, value in vars(self).items() if key != "name"}}
