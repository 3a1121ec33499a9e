"""Ovis2.5 as its checkpoints on disk define it: configuration, image patches, modules.

Loads the released safetensors unchanged, without a bundle's Python files and without flash-attn, on CPU or CUDA.
Three parts: a native-resolution vision transformer (SigLIP2-NaViT), a head that turns each 2x2 group of patches into a
probability distribution over a visual vocabulary, and a Qwen3 language model that reads the expectation of a visual
embedding table under that distribution.

Importing this module registers the configuration and the model with transformers' Auto classes under ``ovis2_5``.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.activations import ACT2FN

from saiqa.files.checkpoint_files import PREPROCESSOR_FILE
from saiqa.model.pixels import PixelBounds, Preprocessing, resized_size

if TYPE_CHECKING:
    from transformers.modeling_outputs import CausalLMOutputWithPast

# Placeholders in a token sequence, all negative so that they cannot collide with token ids.
VISUAL_EMBEDDING_ID = -300
IMAGE_START_ID = -301
IMAGE_END_ID = -302
INDICATOR_IDS = (IMAGE_START_ID, IMAGE_END_ID, -303, -304)  # image start, end; video start, end: the last rows of vte

TURN_MARKS = ("<|im_start|>", "<|im_end|>")
ROPE_THETA = 10000.0
HEAD_ROWS = 512  # groups per chunk of the visual head: their distributions are in memory together


# --- Configuration ---------------------------------------------------------------------------------------------------


class Ovis2_5VisionConfig(PretrainedConfig):
    """Configuration of the vision tower (``vit_config`` in a bundle's config.json)."""

    model_type = "siglip2_navit"
    base_config_key = "vit_config"

    def __init__(
        self,
        hidden_size: int = 1152,
        intermediate_size: int = 4304,
        num_hidden_layers: int = 27,
        num_attention_heads: int = 16,
        num_channels: int = 3,
        num_patches: int = -1,
        image_size: int = 512,
        patch_size: int = 16,
        hidden_act: str = "gelu_pytorch_tanh",
        layer_norm_eps: float = 1e-6,
        attention_dropout: float = 0.0,
        hidden_stride: int = 2,
        window_size: int = 112,
        fullatt_block_indexes: list[int] | None = None,
        temporal_patch_size: int = 1,
        preserve_original_pe: bool = True,
        use_rope: bool = True,
        **kwargs: object,
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_channels = num_channels
        self.num_patches = num_patches
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        self.hidden_stride = hidden_stride
        self.window_size = window_size
        self.fullatt_block_indexes = fullatt_block_indexes
        self.temporal_patch_size = temporal_patch_size
        self.preserve_original_pe = preserve_original_pe
        self.use_rope = use_rope


class Ovis2_5Config(PretrainedConfig):
    """A bundle's config.json.

    ``min_pixels`` and ``max_pixels`` are optional additions of this toolkit: the bounds used in training are stored with the
    checkpoint and applied at inference (the released bundle has none and uses the defaults).
    """

    model_type = "ovis2_5"
    sub_configs = {"llm_config": Qwen3Config, "vit_config": Ovis2_5VisionConfig}  # noqa: RUF012

    def __init__(
        self,
        llm_config: dict | Qwen3Config | None = None,
        vit_config: dict | Ovis2_5VisionConfig | None = None,
        visual_vocab_size: int = 65536,
        hidden_size: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs: object,
    ):
        self.llm_config = _as_config(Qwen3Config, llm_config)
        self.vit_config = _as_config(Ovis2_5VisionConfig, vit_config)
        self.visual_vocab_size = visual_vocab_size
        self.hidden_size = hidden_size or self.llm_config.hidden_size
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels
        kwargs.setdefault("tie_word_embeddings", self.llm_config.tie_word_embeddings)
        super().__init__(**kwargs)

    def get_text_config(self, *args: object, **kwargs: object) -> Qwen3Config:
        return self.llm_config

    def to_dict(self) -> dict:
        """As in transformers, with ``rope_theta`` also where transformers 4, and so the release's programs, expect it."""
        fields = super().to_dict()
        llm = fields["llm_config"]
        llm.setdefault("rope_theta", (llm.get("rope_parameters") or {}).get("rope_theta", ROPE_THETA))
        return fields


def _as_config(cls: type[PretrainedConfig], value: dict | PretrainedConfig | None) -> PretrainedConfig:
    if isinstance(value, dict):
        return cls(**{key: item for key, item in value.items() if key != "model_type"})
    return cls() if value is None else value


# --- Images ----------------------------------------------------------------------------------------------------------


def image_to_patches(
    image: Image.Image, bounds: PixelBounds, preprocessing: Preprocessing, patch_size: int = 16, stride: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize one image, scale its values and cut it into patches.

    Returns:
        Patches [rows * columns, 3 * patch_size ** 2] float32, channels first within each, with the ``stride`` x ``stride``
        patches of a group consecutive; and their grid [1, 3] int64: (1, rows, columns).
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    height, width = resized_size(image.height, image.width, bounds, patch_size * stride)
    pixels = preprocessing.pixels(image, height, width)
    rows, columns = height // patch_size, width // patch_size
    blocks = pixels.reshape(rows // stride, stride, patch_size, columns // stride, stride, patch_size, 3)
    patches = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3 * patch_size**2)
    return torch.from_numpy(np.ascontiguousarray(patches)), torch.tensor([[1, rows, columns]])


# --- Vision tower ----------------------------------------------------------------------------------------------------


def _grouped(grid: torch.Tensor, stride: int) -> torch.Tensor:
    """[rows, columns, ...] -> [rows * columns, ...] in the order of the patches (2x2 groups consecutive)."""
    rows, columns, *rest = grid.shape
    blocks = grid.reshape(rows // stride, stride, columns // stride, stride, *rest)
    return blocks.transpose(1, 2).reshape(rows * columns, *rest)


class PatchEmbeddings(nn.Module):
    """Linear projection of each patch plus the learned position grid, resized to the image's own grid."""

    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.stride = config.hidden_stride
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, patches: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        weight = self.patch_embedding.weight
        embedded = F.linear(patches.to(weight.dtype), weight.flatten(1), self.patch_embedding.bias)
        positions = {grid: self._positions(*grid).to(embedded.dtype) for grid in set(grids)}
        return embedded + torch.cat([positions[grid] for grid in grids])

    def _positions(self, rows: int, columns: int) -> torch.Tensor:
        table = self.position_embedding.weight.reshape(self.side, self.side, -1).permute(2, 0, 1)[None]
        resized = F.interpolate(table.float(), size=(rows, columns), mode="bicubic", align_corners=False)
        return _grouped(resized[0].permute(1, 2, 0), self.stride)


def rotary_angles(rows: int, columns: int, head_dim: int, stride: int, device: torch.device) -> torch.Tensor:
    """Angles [rows * columns, head_dim] in radians, float32: half of the rotary pairs encode the row, half the column."""
    exponents = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=device) / (head_dim // 2)
    frequencies = ROPE_THETA**-exponents
    by_row = torch.arange(rows, device=device, dtype=torch.float32)[:, None, None].expand(rows, columns, 1)
    by_column = torch.arange(columns, device=device, dtype=torch.float32)[None, :, None].expand(rows, columns, 1)
    pairs = torch.cat([by_row * frequencies, by_column * frequencies], dim=-1)
    return _grouped(torch.cat([pairs, pairs], dim=-1), stride)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    wide, half = x.float(), x.shape[-1] // 2
    rotated = wide * cos
    rotated[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(wide[..., :half], sin[..., half:])
    return rotated.to(x.dtype)


class VisionAttention(nn.Module):
    """Full attention among the patches of one image; packed images never attend to each other."""

    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )

    def forward(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        query, key, value = self.project(hidden, cos, sin)
        parts, start = [], 0
        for length, images in ((length, len(list(run))) for length, run in itertools.groupby(lengths)):
            end = start + images * length  # consecutive images of one size are batched
            parts.append(self._attend(*(x[start:end].unflatten(0, (images, length)) for x in (query, key, value))))
            start = end
        return self.out_proj(torch.cat([part.flatten(0, 1) for part in parts]))

    def project(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, key and value, each [patches, heads, head_dim]."""
        query, key, value = (
            projection(hidden).unflatten(-1, (self.heads, -1)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return _rotate(query, cos, sin), _rotate(key, cos, sin), value

    @staticmethod
    def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """[images, patches, heads, head_dim] -> [images, patches, heads * head_dim]"""
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class VisionMLP(nn.Module):
    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden)))


class VisionBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), cos, sin, lengths)
        return hidden + self.mlp(self.layer_norm2(hidden))


class VisionEncoder(nn.Module):
    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList(VisionBlock(config) for _ in range(config.num_hidden_layers))


class VisionTransformer(nn.Module):
    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.config = config
        self.embeddings = PatchEmbeddings(config)
        self.encoder = VisionEncoder(config)
        # Present in every bundle but unused: the features are taken before it.
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, patches: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
        config = self.config
        head_dim = config.hidden_size // config.num_attention_heads
        hidden = self.embeddings(patches, grids)
        angles = {grid: rotary_angles(*grid, head_dim, config.hidden_stride, hidden.device) for grid in set(grids)}
        cos, sin = (torch.cat([turn(angles[grid]) for grid in grids])[:, None] for turn in (torch.cos, torch.sin))
        lengths = [rows * columns for rows, columns in grids]
        for layer in self.encoder.layers:
            hidden = layer(hidden, cos, sin, lengths)
        return hidden


class VisionTower(nn.Module):
    """Holds the transformer under the name used in the weight files."""

    def __init__(self, config: Ovis2_5VisionConfig):
        super().__init__()
        self.config = config
        self.vision_model = VisionTransformer(config)


class VisualTokenizer(nn.Module):
    """Patches -> a probability distribution over the visual vocabulary for each 2x2 group."""

    def __init__(self, config: Ovis2_5Config):
        super().__init__()
        vit = config.vit_config
        self.bounds = PixelBounds.of(config)
        self.preprocessing: Any = None  # the checkpoint's ``Preprocessing``, once one is loaded
        self.vit = VisionTower(vit)
        words = config.visual_vocab_size - len(INDICATOR_IDS)
        self.head = nn.Sequential(nn.Linear(vit.hidden_size * vit.hidden_stride**2, words, bias=False), nn.LayerNorm(words))

    def compile_blocks(self) -> None:
        """Let torch.compile fuse the operations between the tower's matrix products."""
        for block in self.vit.vision_model.encoder.layers:
            block.mlp.compile(dynamic=True)  # type: ignore[union-attr]
            attention: Any = block.self_attn
            attention.project = torch.compile(attention.project, dynamic=True)

    def preprocess(
        self, image: Image.Image, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``image_to_patches`` with the name and arguments that ms-swift's template uses."""
        bounds = PixelBounds(min_pixels or self.bounds.min_pixels, max_pixels or self.bounds.max_pixels)
        vit = self.vit.config
        return image_to_patches(image, bounds, self.preprocessing, vit.patch_size, vit.hidden_stride)

    def features(self, pixel_values: torch.Tensor, grid_thws: torch.Tensor) -> torch.Tensor:
        """The tower's output [groups, stride ** 2 * hidden] for packed patches [n, 768] with grids [images, 3]."""
        grids = [(rows, columns) for _, rows, columns in grid_thws.tolist()]
        hidden = self.vit.vision_model(pixel_values, grids)
        return hidden.reshape(-1, hidden.shape[-1] * self.vit.config.hidden_stride**2)

    def forward(self, pixel_values: torch.Tensor, grid_thws: torch.Tensor) -> torch.Tensor:
        """Probabilities [groups, visual_vocab_size]; the last four (the indicators) are zero."""
        return F.pad(self.distribution(self.features(pixel_values, grid_thws)), (0, len(INDICATOR_IDS)))

    def distribution(self, features: torch.Tensor) -> torch.Tensor:
        """Probabilities [groups, visual_vocab_size - 4] from features [groups, stride ** 2 * hidden], without indicators."""
        logits = self.head(features)
        return torch.softmax(logits, dim=-1, dtype=torch.float32).to(logits.dtype)


class VisualEmbedding(nn.Embedding):
    """A table read by index (indicators) or by expectation under a distribution [..., visual_vocab_size]."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if tokens.is_floating_point():
            return tokens.to(self.weight.dtype) @ self.weight
        return super().forward(tokens)


# --- The model -------------------------------------------------------------------------------------------------------


class Ovis2_5(PreTrainedModel, GenerationMixin):
    """Vision tower, visual embedding table and Qwen3, under the weight names of the released bundles."""

    config_class = Ovis2_5Config
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["Qwen3DecoderLayer", "VisionBlock"]  # noqa: RUF012
    _tied_weights_keys = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Ovis2_5Config):
        super().__init__(config)
        config.llm_config._attn_implementation = config._attn_implementation
        self.llm = Qwen3ForCausalLM(config.llm_config)
        self.visual_tokenizer = VisualTokenizer(config)
        self.vte = VisualEmbedding(config.visual_vocab_size, config.hidden_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif hasattr(module, "variance_epsilon"):  # Qwen3's RMSNorm
            nn.init.ones_(module.weight)  # type: ignore[arg-type]

    def get_wte(self) -> nn.Embedding:
        """The word embedding table (ms-swift's name for it)."""
        return self.llm.get_input_embeddings()

    get_input_embeddings = get_wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.llm.set_output_embeddings(value)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: object, **kwargs: object
    ) -> Self | tuple[Self, dict[str, object]]:
        """As in transformers, plus the preprocessing stored beside the weights. Raises ``InputError`` if there is none."""
        preprocessing = Preprocessing.of_checkpoint(pretrained_model_name_or_path)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info
        model.visual_tokenizer.preprocessing = preprocessing
        return loaded

    def save_pretrained(
        self, save_directory: str | Path, *args: object, state_dict: dict | None = None, **kwargs: object
    ) -> None:
        """As in transformers, plus the preprocessing; a tied head is not written, even if a trainer's state dict has it."""
        if state_dict is not None and self.config.llm_config.tie_word_embeddings:
            state_dict = {name: weight for name, weight in state_dict.items() if name not in self._tied_weights_keys}
        super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
        if preprocessing := self.visual_tokenizer.preprocessing:
            text = json.dumps(preprocessing.file, indent=2) + "\n"
            Path(save_directory, PREPROCESSOR_FILE).write_text(text, encoding="utf-8")

    @property
    def indicator_token_indices(self) -> torch.Tensor:
        """Rows of ``vte`` for image start, image end, video start and video end."""
        size = self.vte.num_embeddings
        return torch.arange(size - len(INDICATOR_IDS), size, device=self.vte.weight.device)

    def embed_images(self, pixel_values: torch.Tensor, grid_thws: torch.Tensor) -> torch.Tensor:
        """Visual embeddings [groups, hidden] for packed patches [n, 768] with grids [images, 3]."""
        features = self.visual_tokenizer.features(pixel_values, grid_thws)
        groups = (grid_thws.prod(-1) // self.config.vit_config.hidden_stride**2).tolist()
        words = self.vte.weight[: -len(INDICATOR_IDS)]
        # The distributions are far larger than their input and output: compute a few rows at a time, and image by image, so
        # that no image's result depends on its neighbours.
        rows = (part for image in features.split(groups) for part in image.split(HEAD_ROWS))
        return torch.cat([self.visual_tokenizer.distribution(part) @ words for part in rows])

    def embed(self, input_ids: torch.Tensor, visual_embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings [..., hidden] for token ids [...]; negative ids are the placeholders of this module.

        ``visual_embeds`` [groups, hidden] replace the ``VISUAL_EMBEDDING_ID`` placeholders in order.
        """
        embeds = self.get_wte()(input_ids.clamp(min=0)).clone()
        indicators = self.vte(self.indicator_token_indices).to(embeds.dtype)
        for row, indicator in enumerate(INDICATOR_IDS):
            embeds[input_ids == indicator] = indicators[row]
        if visual_embeds is not None:
            embeds[input_ids == VISUAL_EMBEDDING_ID] = visual_embeds.to(embeds.dtype)
        return embeds

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        grid_thws: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        """Qwen3's output for token ids [batch, length] with placeholders and the packed patches of their images.

        Logits are computed for the last ``logits_to_keep`` positions, or for those where it is true; if 0, for all.
        """
        if inputs_embeds is None:
            assert input_ids is not None, "token ids, or their embeddings"
            visual = None if pixel_values is None or grid_thws is None else self.embed_images(pixel_values, grid_thws)
            inputs_embeds = self.embed(input_ids, visual)
        return self.llm(inputs_embeds=inputs_embeds, logits_to_keep=logits_to_keep, **kwargs)


AutoConfig.register("siglip2_navit", Ovis2_5VisionConfig, exist_ok=True)
AutoConfig.register("ovis2_5", Ovis2_5Config, exist_ok=True)
AutoModelForCausalLM.register(Ovis2_5Config, Ovis2_5, exist_ok=True)


# --- Prompting -------------------------------------------------------------------------------------------


def around_image(query: str) -> tuple[str, str]:
    """The parts of a query before and after the image; without ``<image>`` everything comes after it."""
    before, tag, after = query.partition("<image>")
    return (before, after) if tag else ("", query)


def turn_text(query: str, system: str | None = None) -> tuple[str, str]:
    """The texts around the image for one user turn: (before, after). ``<image>`` in the query marks its position."""
    before, after = around_image(query)
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{head}<|im_start|>user\n{before}", f"\n{after}<|im_end|>\n<|im_start|>assistant\n"


def image_token_ids(groups: int) -> list[int]:
    """Placeholders for one image of ``groups`` visual embeddings."""
    return [IMAGE_START_ID, *[VISUAL_EMBEDDING_ID] * groups, IMAGE_END_ID]
