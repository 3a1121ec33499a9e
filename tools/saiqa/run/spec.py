"""A checkpoint and how it is run: everything a rating depends on besides the image and the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saiqa import prompts
from saiqa.engines import Engine, describe_input, load_engine
from saiqa.errors import Failed, InputError, lacking
from saiqa.files import checkpoint_folders
from saiqa.model.pixels import PixelBounds, Preprocessing
from saiqa.run.ray_workers import Fleet
from saiqa.run.views import Views

_VLLM_CLIENT = "saiqa.engines.vllm_client:VllmClient"
_FOR_VLLM = "Install requirements-vllm.txt in a separate environment, or use the prefill engine"


@dataclass(frozen=True)
class Model:
    """A checkpoint and how to run it.

    Attributes:
        checkpoint: its folder.
        engine: a key of ``engines.ENGINES``.
        device, dtype, batch_size, compile, trust_remote_code: as ``engines.load_engine`` takes them.
        system: the system prompt; empty for none.
        bounds: bounds on the pixels of an image.
        upright: whether images are turned as their EXIF orientation says.
        base_url: address of a vLLM server that runs it; None for a local engine.
        views: number of views per picture, one of ``views.CHOICES``.
    """

    checkpoint: Path
    engine: str
    device: str
    dtype: str
    batch_size: int
    system: str
    bounds: PixelBounds
    upright: bool
    trust_remote_code: bool = False
    compile: bool = False
    base_url: str | None = None
    views: int = 1

    @classmethod
    def of(
        cls,
        checkpoint: Path,
        *,
        system: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **options: Any,
    ) -> Model:
        """A model with the checkpoint's system prompt and pixel bounds unless others are given.

        Raises:
            InputError: a file of the checkpoint is missing or broken, or a bound is invalid.
        """
        bounds = PixelBounds.of_checkpoint(checkpoint, min_pixels, max_pixels)
        return cls(checkpoint, system=prompts.system_prompt(checkpoint, system), bounds=bounds, **options)

    @property
    def engine_name(self) -> str:
        """The engine's name, with the number of views if there are several."""
        return engine_name({"engine": self.engine, "views": self.views})

    def load(self) -> Engine:
        """Load the engine. Raises ``Failed`` if a package it needs is not installed."""
        return Views(self._load(), self.views, self.upright) if self.views > 1 else self._load()

    def _load(self) -> Engine:
        options = {name: value for name, value in vars(self).items() if name not in ("checkpoint", "engine", "views")}
        address = options.pop("base_url")
        try:
            if address:
                return load_engine(_VLLM_CLIENT, self.checkpoint, base_url=address, **options)
            return load_engine(self.engine, self.checkpoint, **options)
        except ModuleNotFoundError as error:
            if self.engine == "vllm":
                raise Failed(f"the vllm engine needs {error.name}, which is not installed", _FOR_VLLM) from error
            raise lacking(f"the {self.engine} engine", error.name, self.engine) from error

    def fleet(self, count: int | None, address: str | None) -> Fleet:
        """The requirements of ``count`` workers with this model; see ``ray_workers.Fleet``."""
        weights = sum(shard.stat().st_size for shard in self.checkpoint.glob("*.safetensors"))
        # A checkpoint in bfloat16 takes twice its size in float32; Python and torch take about a gigabyte.
        return Fleet(count, address, on_gpu=self.device != "cpu", bytes_each=2 * weights + 2**30)

    def identity(self, prompt_hash: str) -> dict:
        """What a rating depends on; ratings with different identities are never mixed. The dtype may still be "auto"."""
        return {
            "model": checkpoint_folders.fingerprint(self.checkpoint),
            "prompt": prompt_hash,
            "engine": self.engine_name,
            "dtype": self.dtype,
            **self._input(),
        }

    def _input(self) -> dict:
        return describe_input(self.system, self.bounds, Preprocessing.of_checkpoint(self.checkpoint), self.upright)

    def settled(self, identity: Mapping, details: Mapping) -> dict:
        """The identity with the dtype of the loaded engine, from its ``Engine.describe`` (``details``).

        Raises:
            InputError: the engine gives the model another input: it runs on another machine with other files.
        """
        other = {name: details[name] for name, value in self._input().items() if details.get(name, value) != value}
        if other:
            what = f"the engine differs from this machine's checkpoint in {', '.join(other)}"
            raise InputError(what, "Every machine needs the same files")
        return {**identity, "dtype": details["dtype"]}


def engine_name(described: Mapping) -> str:
    """The engine's name from its ``Engine.describe``, with the number of views if there are several."""
    views = described.get("views", 1)
    return described["engine"] if views == 1 else f"{described['engine']}, {views} views"
