"""A vLLM server for ``--base_url``: ``python -m saiqa.engines.vllm_server CHECKPOINT --port 8000``; other flags are vLLM's.

vLLM gets the checkpoint's view, its configuration without the bundle's Python files, and a chat template that words a turn
like ``ovis2_5.turn_text``.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from saiqa.cli.console import run
from saiqa.errors import UsageError
from saiqa.model.checkpoint_view import view_of

SERVER = "vllm.entrypoints.openai.api_server"

TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{{- part.text if part.type == 'text' else '<image>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until stopped. Raises ``InputError`` for a broken checkpoint."""
    path, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    if not path or path.startswith("-"):
        raise UsageError("no checkpoint given", "Give its folder first, then flags of vllm serve")
    from saiqa.engines.vllm_engine import mend_processor
    from saiqa.engines.vllm_inputs import Inputs

    mend_processor()
    with view_of(path) as view:
        template = view / "chat_template.jinja"
        template.unlink(missing_ok=True)
        template.write_text(TEMPLATE, encoding="utf-8")
        ours = ["--hf-overrides", '{"architectures": ["Ovis2_5"]}', "--chat-template", str(template)]
        ours += ["--chat-template-content-format", "openai", "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
        ours += ["--max-model-len", str(Inputs(path, None, None, False).most_tokens), "--served-model-name", path]
        sys.argv = [SERVER, "--model", str(view), *ours, *flags]
        runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.exit(run(main))
