"""The engines on the reference bundle: prefill in one pass, ms-swift by generating."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import SMALL_BUNDLE, TOOLS, run_command
from saiqa.engines import Failure, Rating, Request, load_engine
from saiqa.engines.loading import load_model, load_tokenizer
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.errors import InputError
from saiqa.facts import WORDS
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config
from saiqa.model.pixels import PixelBounds, Preprocessing, resized_size

TOLERANCE = 1e-4
CASES = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"]


def request_of(case) -> Request:
    return Request(SMALL_BUNDLE / case["image"], case["query"], case["answer_prefix"])


# What the oracle calls its cases with and without the system prompt of args.json, and what an engine is given for each.
OWN_SYSTEM, NO_SYSTEM = "_with_system", ""
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


def assert_rated(answer, case, system=NO_SYSTEM):
    assert isinstance(answer, Rating)
    for word in WORDS:
        assert abs(answer.logprobs[word] - case[f"label_logprobs{system}"][word]) < TOLERANCE


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
    """The random bundle writes no rating, so that its answer is put into its mouth; the rest is ms-swift's own way."""
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


def encoded_by_swift(engine, case) -> dict:
    """What ms-swift's template makes of a case."""
    from swift import InferRequest

    image = Image.open(SMALL_BUNDLE / case["image"]).convert("RGB")
    template = engine.engine.template
    template.model = engine.engine.model
    return template.encode(InferRequest(messages=[{"role": "user", "content": case["query"]}], images=[image]))


def copy_of_bundle(folder: Path, name: str, **changed) -> Path:
    """The bundle with some values of its file ``name`` changed."""
    shutil.copytree(SMALL_BUNDLE, folder, ignore=shutil.ignore_patterns("expected*", "images", name))
    values = json.loads((SMALL_BUNDLE / name).read_text())
    (folder / name).write_text(json.dumps(values | changed))
    return folder


@pytest.mark.parametrize("engine", ["prefill", "swift"])
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("preprocessor_config.json", {"resample": 3}),
        ("preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.6]}),
        ("preprocessor_config.json", {"image_std": [0.25, 0.25, 0.25]}),
        ("preprocessor_config.json", {"rescale_factor": 1 / 200}),
        ("args.json", {"system": "Judge sternly."}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_numbers_follow_the_files_of_the_bundle(engine, name, changed, tmp_path):
    """What is changed in the bundle changes what the model sees, as the pixels and tokens made by hand say."""
    bundle = copy_of_bundle(tmp_path / "bundle", name, **changed)
    case = CASES[4]
    seen, before = (asked_by(load_engine(engine, path, device="cpu"), case) for path in (bundle, SMALL_BUNDLE))
    assert seen != before
    system = changed.get("system", "You are a helpful assistant.")
    assert seen == asked_by_hand(case, system, json.loads((bundle / "preprocessor_config.json").read_text()))
    described = load_engine(engine, bundle, device="cpu").describe()
    assert described["system"] == system
    assert described["preprocessing"]["resample"] == ("bicubic" if "resample" in changed else "bilinear")


def asked_by(engine, case) -> tuple[list[int], list[float]]:
    """Token ids and the first pixel values that an engine makes of a case."""
    if engine.name == "prefill":
        (row,) = engine.rows([request_of(case)])
        prefix = engine.tokenizer.encode(case["answer_prefix"])
        ids = row.prefix + row.questions[0].suffix
        return ids[: len(ids) - len(prefix)], engine.patches(row)[0][:3].flatten().tolist()
    encoded = encoded_by_swift(engine, case)
    return encoded["input_ids"], encoded["pixel_values"][:3].flatten().tolist()


def asked_by_hand(case, system: str, preprocessor: dict) -> tuple[list[int], list[float]]:
    tokenizer = load_tokenizer(SMALL_BUNDLE)
    plain = tokenizer.encode(f"<|im_start|>system\n{system}<|im_end|>\n")
    image = Image.open(SMALL_BUNDLE / case["image"]).convert("RGB")
    height, width = resized_size(image.height, image.width, PixelBounds())
    values = np.asarray(image.resize((width, height), preprocessor["resample"]), dtype=np.float32)
    scaled = values * np.float32(preprocessor["rescale_factor"])
    mean, std = (np.array(preprocessor[name], dtype=np.float32) for name in ("image_mean", "image_std"))
    normal = ((scaled - mean) / std).transpose(2, 0, 1)
    patches = [normal[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] for row, column in ((0, 0), (0, 1), (1, 0))]
    return plain + case["input_ids"], pytest.approx(np.stack(patches).flatten().tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resample": 9}, "resample is 9"),
        ({"resample": None}, "resample is None"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.5, 0.0]}, "image_std"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_center_crop": True}, "do_center_crop"),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(changed, said, tmp_path):
    bundle = copy_of_bundle(tmp_path / "bundle", "preprocessor_config.json", **changed)
    with pytest.raises(InputError, match=f"preprocessor_config.json: {said}"):
        load_engine("prefill", bundle, device="cpu")


def test_a_bundle_without_preprocessing_is_refused(tmp_path):
    bundle = copy_of_bundle(tmp_path / "bundle", "args.json")
    (bundle / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json is not there"):
        load_engine("prefill", bundle, device="cpu")


def test_rows_of_different_length_share_a_pass(prefill):
    """All twelve cases, shared images and all, in one pass."""
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
    """Fault 1: the random bundle writes gibberish; the release would have scored it 3.0."""
    (answer,) = swift.rate([request_of(CASES[0])])
    assert isinstance(answer, Failure) and "no rating word" in answer.reason


def test_fault_16_no_code_of_a_bundle_is_imported(tmp_path):
    """A bundle whose Python files would leave a trace loads in both engines without leaving it."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in SMALL_BUNDLE.glob("*.*"):
        if not file.name.startswith("expected"):
            (bundle / file.name).write_bytes(file.read_bytes())
    trace = tmp_path / "executed"
    for name in ("configuration_ovis2_5", "modeling_ovis2_5"):
        (bundle / f"{name}.py").write_text(f"open({str(trace)!r}, 'w')\nimport flash_attn\n")
    case = CASES[0]
    assert_rated(load_engine("prefill", bundle, device="cpu", system="").rate([request_of(case)])[0], case)
    load_engine("swift", bundle, device="cpu")
    assert not trace.exists()


def test_fault_17_a_renamed_folder_loads(tmp_path):
    renamed = tmp_path / "my best run (final)"
    renamed.symlink_to(SMALL_BUNDLE)
    case = CASES[0]
    assert_rated(load_engine("prefill", renamed, device="cpu", system="").rate([request_of(case)])[0], case)
    assert load_engine("swift", renamed, device="cpu").describe()["engine"] == "swift"


def test_compiled_rates_alike(prefill):
    compiled = load_engine("prefill", SMALL_BUNDLE, device="cpu", system="", compile=True)
    assert compiled.describe()["compile"] is True
    requests = [request_of(case) for case in CASES]
    for answer, case in zip(compiled.rate(requests), CASES, strict=True):
        assert_rated(answer, case)


def test_more_layers_are_compiled_than_torch_compiles_a_function_for(tmp_path):
    """torch.compile leaves a function as it is once it has compiled it for eight different layers, and says so nowhere."""
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
    """Where the processor is sound this is no more than a bfloat16 run."""
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
