"""Where in a picture a score comes from: the map of one image and dimension, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

METHODS = ("hidden", "replaced", "painted", "gradient", "pixels", "alike", "towards")  # described in ``saiqa.model.maps``
# The default method per dimension; docs/how-sure.md says how they were chosen.
DEFAULTS = {"distortion": "towards", "harmony": "towards", "layout": "gradient", "lighting": "pixels"}

# Faults for which the default map beats the baseline (the picture's centre), and those for which it does not, by pointing or
# by area under the ROC curve: `python benchmarks/explain_study.py`; its figures are in docs/how-sure.md.
FOUND = {
    "distortion": ("bent furniture", "wrong materials"),
    "harmony": ("clashing furniture",),
    "layout": ("floating furniture",),
    "lighting": ("stray light",),
}
BLIND = {"harmony": ("mixed styles",), "layout": ("sunken furniture", "furniture of a wrong scale")}


UNCHECKED = "maps were validated on the demo's checkpoint only, not on this one"


def standing(dimension: str, demo: bool) -> str:
    """How far maps of a dimension can be trusted, in one line; ``demo``: whether they come from the demo's checkpoint."""
    unchecked = "" if demo else f"{UNCHECKED}; "
    blind = f", and no better for {', '.join(BLIND[dimension])}" if dimension in BLIND else ""
    ahead = " and ".join(FOUND[dimension])
    return f"{unchecked}on the demo, maps of {dimension} beat the picture's centre for {ahead}{blind}"


@dataclass(frozen=True)
class ImageMap:
    """What lowers the score of one image in one dimension.

    Attributes:
        name: the path as given, or ``image 1`` for an image without one.
        dimension: the dimension.
        score: the image's score from 1 (bad) to 5 (excellent).
        map: how many points each region lowers the score [rows][columns]; below 0 where it raises it.
        method: how the map was made, one of ``METHODS``.
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
        """Left, top, right and bottom of that region in a picture of ``width`` x ``height`` pixels."""
        (row, column), rows, columns = self.worst, len(self.map), len(self.map[0])
        left, right = (width * edge // columns for edge in (column, column + 1))
        top, bottom = (height * edge // rows for edge in (row, row + 1))
        return left, top, right, bottom

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"image": self.name, **{key: value for key, value in vars(self).items() if key != "name"}}
