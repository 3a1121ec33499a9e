"""The engines on the reference bundle: prefill in one pass, ms-swift by generation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers import SMALL_BUNDLE, TOOLS, run_command
from reference_cases import CASES, NO_SYSTEM, OWN_SYSTEM, TOLERANCE, assert_rated, encoded_by_swift, request_of
from saiqa.engines import Failure, Rating, Request, load_engine
from saiqa.engines.loading import load_model, load_tokenizer
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.facts import WORDS
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config
from saiqa.model.pixels import Preprocessing

# The ``system`` argument of the engine for each.
GIVEN = {OWN_SYSTEM: None, NO_SYSTEM: ""}


@pytest.fixture(scope="module")
def prefill():
    return load_engine("prefill", SMALL_BUNDLE, device="cpu", system="")


@pytest.fixture(scope="module", params=GIVEN, ids=["own system prompt", "no system prompt"])
def prefill_and_system(request):
    return load_engine("prefill", SMALL_BUNDLE, device="cpu", system=GIVEN[request.param]), request.param


@pytest.fixture(scope="module")
def swift():
    return load_engine("swift", SMALL_BUNDLE, device="cpu", system="")


@pytest.fixture(scope="module", params=GIVEN, ids=["own system prompt", "no system prompt"])
def swift_and_system(request):
    return load_engine("swift", SMALL_BUNDLE, device="cpu", system=GIVEN[request.param]), request.param


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_prefill_rates_each_case_alone(prefill_and_system, case):
    prefill, system = prefill_and_system
    (row,) = prefill.rows([request_of(case)])
    assert row.prefix + row.questions[0].suffix == case[f"input_ids{system}"] + case["answer_prefix_ids"]
    assert_rated(prefill.rate([request_of(case)])[0], case, system)


@pytest.mark.parametrize("batch_size", [1, 3, 12])
def test_prefill_rates_all_cases_in_one_call(prefill_and_system, batch_size, monkeypatch):
    prefill, system = prefill_and_system
    monkeypatch.setattr(prefill, "batch_size", batch_size)
    answers = prefill.rate([request_of(case) for case in CASES])
    for answer, case in zip(answers, CASES, strict=True):
        assert_rated(answer, case, system)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_swift_asks_and_rates_as_the_reference(swift_and_system, case):
    """The random bundle generates no rating, so its answer is forced; everything else is ms-swift's own code."""
    swift, system = swift_and_system
    encoded = encoded_by_swift(swift, case)
    assert encoded["input_ids"] == case[f"input_ids{system}"]
    ids = torch.tensor([encoded["input_ids"] + case["answer_prefix_ids"]])
    with torch.inference_mode():
        embedded = swift.engine.template._post_encode(swift.engine.model, {**encoded, "input_ids": ids})
        logprobs = swift.engine.model(**embedded).logits[0, -1].log_softmax(-1)
    tokenizer = load_tokenizer(SMALL_BUNDLE)
    rated = {word: logprobs[tokenizer.encode(f" {word}")[0]].item() for word in WORDS}
    assert_rated(Rating(rated), case, system)


def test_rows_of_different_length_share_a_pass(prefill):
    """All twelve cases, with their shared images, in one pass."""
    rows = prefill.rows([request_of(case) for case in CASES])
    assert len(rows) == 6
    patches, grids = zip(*map(prefill.patches, rows), strict=True)
    with torch.inference_mode():
        rated = dict(prefill.forward(rows, list(patches), list(grids)))
    for place, case in enumerate(CASES):
        assert_rated(Rating(dict(zip(WORDS, rated[place], strict=True))), case)


def test_passes_keep_to_images_and_tokens(prefill):
    rows = prefill.rows([request_of(case) for case in CASES])
    longest = max(map(len, rows))
    budget = prefill.token_budget
    try:
        for most_rows, most_tokens in ((1, 10**6), (3, 10**6), (8, longest), (8, 2 * longest), (8, 1)):
            prefill.batch_size, prefill.token_budget = most_rows, most_tokens
            passes = prefill.batches(rows)
            assert sorted(map(id, (row for rows in passes for row in rows))) == sorted(map(id, rows))
            for batch in passes:
                assert len(batch) <= most_rows
                assert len(batch) == 1 or sum(map(len, batch)) <= most_tokens
    finally:
        prefill.batch_size, prefill.token_budget = 8, budget


def test_fault_19_four_dimensions_take_one_pass_over_the_image(prefill):
    passes = []
    tower = prefill.model.visual_tokenizer.vit.vision_model
    watch = tower.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[1])))
    prefill.rate([request_of(case) for case in CASES[:4]])
    watch.remove()
    assert len({case["dimension"] for case in CASES[:4]}) == 4
    assert passes == [1]


def test_a_model_in_memory_rates_as_its_checkpoint():
    engine = PrefillEngine.of_model(load_model(SMALL_BUNDLE), load_tokenizer(SMALL_BUNDLE))
    for answer, case in zip(engine.rate([request_of(case) for case in CASES]), CASES, strict=True):
        assert_rated(answer, case)


def test_pictures_and_files_rate_alike(prefill):
    case = CASES[4]
    picture = Image.open(SMALL_BUNDLE / case["image"])
    assert_rated(prefill.rate([Request(picture, case["query"], case["answer_prefix"])])[0], case)


def test_a_bad_image_fails_alone(prefill, tmp_path):
    torn = tmp_path / "torn.png"
    whole = (SMALL_BUNDLE / "images/ref_0.png").read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    case = CASES[0]
    bad = [Request(path, case["query"], case["answer_prefix"]) for path in (torn, tmp_path / "text.jpg", Path("gone.jpg"))]
    answers = prefill.rate([*bad, request_of(case)])
    assert all(isinstance(answer, Failure) and answer.reason for answer in answers[:3])
    assert_rated(answers[3], case)


def test_swift_writes_what_the_reference_wrote(swift):
    from swift import InferRequest, RequestConfig

    cases = [case for case in CASES if "greedy_text" in case]
    asked = [
        InferRequest(messages=[{"role": "user", "content": case["query"]}], images=[Image.open(SMALL_BUNDLE / case["image"])])
        for case in cases
    ]
    config = RequestConfig(max_tokens=6, temperature=0, logprobs=True)
    for response, case in zip(swift.engine.infer(asked, config, use_tqdm=False), cases, strict=True):
        assert response.choices[0].message.content == case["greedy_text"]
        for got, wanted in zip(response.choices[0].logprobs["content"], case["greedy_logprobs"], strict=True):
            assert abs(got["logprob"] - wanted["logprob"]) < TOLERANCE


def test_swift_gives_no_score_where_no_rating_word_was_written(swift):
    """Fault 1: the random bundle generates gibberish; the release would have scored it 3.0."""
    (answer,) = swift.rate([request_of(CASES[0])])
    assert isinstance(answer, Failure) and "no rating word" in answer.reason


@pytest.mark.slow
def test_compiled_rates_alike(prefill):
    compiled = load_engine("prefill", SMALL_BUNDLE, device="cpu", system="", compile=True)
    assert compiled.describe()["compile"] is True
    requests = [request_of(case) for case in CASES]
    for answer, case in zip(compiled.rate(requests), CASES, strict=True):
        assert_rated(answer, case)


@pytest.mark.slow
def test_more_layers_are_compiled_than_torch_compiles_a_function_for(tmp_path):
    """torch.compile silently stops compiling a function after eight different layers."""
    layers = torch._dynamo.config.recompile_limit + 2
    config = json.loads((SMALL_BUNDLE / "config.json").read_text())
    parts = {name: {**config[name], "num_hidden_layers": layers} for name in ("llm_config", "vit_config")}
    torch.manual_seed(0)
    model = Ovis2_5(Ovis2_5Config(**parts, visual_vocab_size=config["visual_vocab_size"]))
    model.visual_tokenizer.preprocessing = Preprocessing.of_checkpoint(SMALL_BUNDLE)
    model.save_pretrained(tmp_path)
    load_tokenizer(SMALL_BUNDLE).save_pretrained(tmp_path)
    requests = [request_of(case) for case in CASES]
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        compiled = load_engine("prefill", tmp_path, device="cpu", compile=True).rate(requests)
    for answer, plain in zip(compiled, load_engine("prefill", tmp_path, device="cpu").rate(requests), strict=True):
        assert answer.logprobs == pytest.approx(plain.logprobs, abs=TOLERANCE)


def test_compiling_without_a_compiler_is_one_line(tmp_path):
    env = {**os.environ, "CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ran = run_command("infer.py", "--demo", "--limit", "1", "--compile", "--device", "cpu", "--results_dir", tmp_path, env=env)
    assert ran.code == 1 and "Traceback" not in ran.err
    assert "torch.compile" in ran.err.splitlines()[-1] and "g++" in ran.err.splitlines()[-1]


def test_compile_is_for_prefill():
    ran = run_command("infer.py", "--demo", "--engine", "swift", "--compile")
    assert ran.code == 2 and "--compile is for --engine prefill" in ran.err


def test_bfloat16_on_a_cpu_that_claims_amx_and_traps_on_it():
    """On a processor that works this is just a bfloat16 run."""
    case = CASES[0]
    script = f"""
import sys
sys.path.insert(0, {str(TOOLS)!r})
from saiqa.engines import Request, load_engine
engine = load_engine("prefill", {str(SMALL_BUNDLE)!r}, device="cpu", dtype="bfloat16")
(answer,) = engine.rate([Request({str(SMALL_BUNDLE / case["image"])!r}, {case["query"]!r}, {case["answer_prefix"]!r})])
print(len(answer.logprobs))
"""
    env = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "5"
