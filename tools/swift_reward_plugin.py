"""The score as a reward of ms-swift's GRPO: ``--external_plugins tools/swift_reward_plugin.py --reward_funcs saiqa``.

A language model under GRPO writes text: a prompt, a scene, a program. You provide the function that renders it; name it in
``SAIQA_RENDERER=module:function``, in the working directory or installed. It is called as ``function(completions, **columns)``
with the columns of the dataset, and returns one image per completion (anything that ``saiqa.reward.Reward`` takes). Without it,
a completion must be the path of an image file.
``SAIQA_SERVICE``, ``SAIQA_MODEL_PATH`` or ``SAIQA_DEMO=1`` selects where the scores come from.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from swift.rewards import ORM, orms

from saiqa.errors import UsageError
from saiqa.reward import Reward

RENDERER_VARIABLE = "SAIQA_RENDERER"


class SpatialAesthetics(ORM):
    """The overall score, from 1 to 5, of the picture that each completion stands for.

    Raises ``saiqa.reward.UnscoredError`` where a picture has no score: ms-swift would count a missing reward as 0.
    """

    def __init__(self, args: object = None):
        super().__init__(args)
        self.reward = Reward.from_environment()
        self.render = _renderer(os.environ.get(RENDERER_VARIABLE))

    def __call__(self, completions: Sequence[str], **columns) -> list[float]:
        rewards, _ = self.reward(self.render(completions, **columns))
        if len(rewards) != len(completions):
            raise UsageError(f"{len(rewards)} pictures for {len(completions)} completions", f"Mend {RENDERER_VARIABLE}")
        return rewards


def _renderer(name: str | None):
    if name is None:
        return lambda completions, **columns: [completion.strip() for completion in completions]
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # the `swift` command has its own folder there instead
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{RENDERER_VARIABLE}={name}: {error}", "Name a function as module:function") from None


orms["saiqa"] = SpatialAesthetics
