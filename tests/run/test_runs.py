"""Resumed runs: no stored rating is lost, none of another configuration is mixed in, with either command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers import NO_ANNOTATIONS, SMALL_BUNDLE, TOOLS, read_csv, read_jsonl, record, write_jsonl
from saiqa import Scorer, facts
from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.run.ray_workers import _only
from saiqa.run.spec import Model

MODEL = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"]


@pytest.fixture
def rooms(tmp_path) -> list[Path]:
    """Five pictures."""
    paths = [tmp_path / "rooms" / f"{name}.png" for name in "abcde"]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        Image.new("RGB", (700, 600 + 8 * seed), (40 * seed, 250 - 30 * seed, 90)).save(path)
    return paths


# ---- resumed runs have one configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["flags", "environment"])
@pytest.mark.parametrize("bound", ["max_pixels", "min_pixels"])
def test_ratings_at_other_pixel_bounds_are_not_mixed(run_main, make_data_root, rooms, tmp_path, monkeypatch, way, bound):
    """As the program advises after running out of memory: fewer pixels and --resume."""
    root = make_data_root(["lighting"])
    infer = ["infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer"]
    score = ["score_images.py", *rooms[:2], *MODEL, "--output_csv", tmp_path / "o.csv"]
    for command in (infer, score):
        assert run_main(*command).code == 0
    if way == "environment":
        monkeypatch.setenv(bound.upper(), "90000")
    other = ["--" + bound, "90000"] if way == "flags" else []
    for command in (infer, score):
        ran = run_main(*command, *other, "--resume")
        assert ran.code == 2 and f"{bound} was {'2408448' if bound == 'max_pixels' else '200704'}, is 90000" in ran.err
        assert run_main(*command, *other).code == 0
    engine = json.loads(root.ratings("lighting").with_suffix(".run.json").read_text())["engine"]
    assert engine[bound] == 90_000
    assert json.loads((tmp_path / "o.run.json").read_text())["identity"][bound] == 90_000


def test_flags_win_over_the_environment_and_it_over_the_checkpoint(monkeypatch, tmp_path):
    for file in SMALL_BUNDLE.glob("*.*"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    config = json.loads((SMALL_BUNDLE / "config.json").read_text()) | {"min_pixels": 1000, "max_pixels": 5000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    bounds = Scorer(tmp_path).model.bounds
    assert (bounds.min_pixels, bounds.max_pixels) == (1000, 5000)
    monkeypatch.setenv("MAX_PIXELS", "6000")
    assert Scorer(tmp_path).model.bounds.max_pixels == 6000
    assert Scorer(tmp_path, max_pixels=7000).model.bounds.max_pixels == 7000
    monkeypatch.setenv("MAX_PIXELS", "many")
    with pytest.raises(InputError, match="MAX_PIXELS is 'many'"):
        Scorer(tmp_path)


def test_bounds_change_what_the_model_sees(rooms):
    small, large = (Scorer(SMALL_BUNDLE, device="cpu", max_pixels=n).score(rooms[:1])[0] for n in (250_000, 400_000))
    assert small.scores != large.scores


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("preprocessor_config.json", {"resample": 3}, "preprocessing was resample bilinear"),
        ("args.json", {"system": None}, "system was You are a helpful assistant., is none"),
    ],
)
def test_filter_and_system_prompt_belong_to_a_run(run_main, rooms, tmp_path, file, changed, said):
    bundle_copy = tmp_path / "bundle"
    bundle_copy.mkdir()
    for path in SMALL_BUNDLE.glob("*.*"):
        (bundle_copy / path.name).write_bytes(path.read_bytes())
    flags = ["--model_path", bundle_copy, "--data_root", NO_ANNOTATIONS, "--device", "cpu", "--output_csv", tmp_path / "o.csv"]
    assert run_main("score_images.py", rooms[0], *flags).code == 0
    values = json.loads((bundle_copy / file).read_text())
    (bundle_copy / file).write_text(json.dumps(values | changed))
    ran = run_main("score_images.py", *rooms, *flags, "--resume")
    assert ran.code == 2 and said in ran.err


def test_workers_that_differ_are_refused():
    details = {"device": "cpu", "torch": "2.9.1", "max_pixels": 5, "system": None}
    assert _only([details, {**details, "device": "NVIDIA H100"}]) == details
    with pytest.raises(InputError, match="worker 2 of 2 has max_pixels 6, worker 1 has 5"):
        _only([details, {**details, "max_pixels": 6}])
    options = {"engine": "prefill", "device": "cpu", "dtype": "auto", "batch_size": 8, "upright": False}
    model = Model.of(SMALL_BUNDLE, **options)
    here = {**model.identity(""), "dtype": "float32"}
    assert model.settled(model.identity(""), here) == here
    with pytest.raises(InputError, match="differs from this machine's checkpoint in system"):
        model.settled(model.identity(""), {**here, "system": "Be brief."})


# ---- stored ratings stay ---------------------------------------------------------------------------------------------


def test_resuming_adds_and_what_is_not_named_again_stays(run_main, rooms, tmp_path):
    outputs = [*("--output_csv", tmp_path / "m.csv"), *("--output_jsonl", tmp_path / "m.jsonl")]
    (tmp_path / "rooms/torn.png").write_bytes(b"torn")
    first = [rooms[3], tmp_path / "rooms/torn.png", rooms[1]]
    assert run_main("score_images.py", *first, *MODEL, *outputs).code == 3
    before = read_csv(tmp_path / "m.csv")
    ran = run_main("score_images.py", rooms[0], rooms[1], *MODEL, *outputs, "--resume")
    assert ran.code == 0, ran.err
    assert "1 of 2 images are scored already" in ran.err
    assert "2 lines of the earlier run, of images that are not named now, are kept" in ran.err
    after = read_csv(tmp_path / "m.csv")
    assert [Path(row["image"]).stem for row in after] == ["d", "torn", "a", "b"]
    assert [after[0], after[1], after[3]] == before
    assert [line["images"] for line in read_jsonl(tmp_path / "m.jsonl")] == [[row["image"]] for row in after]
    assert "error" in read_jsonl(tmp_path / "m.jsonl")[1]
    alone = tmp_path / "alone.csv"
    run_main("score_images.py", rooms[0], *MODEL, "--output_csv", alone)
    assert read_csv(alone)[0] == after[2]


def test_rows_without_the_columns_shown_now_stay_too(run_main, rooms, tmp_path):
    output = ["--output_csv", tmp_path / "m.csv"]
    assert run_main("score_images.py", *rooms[:2], *MODEL, *output).code == 0
    before = read_csv(tmp_path / "m.csv")
    assert run_main("score_images.py", *rooms[1:3], *MODEL, *output, "--probabilities", "--resume").code == 0
    after = read_csv(tmp_path / "m.csv")
    assert [Path(row["image"]).stem for row in after] == ["a", "b", "c"]
    assert after[0]["layout"] == before[0]["layout"] and after[0]["layout_good"] == ""
    assert all(row["layout_good"] for row in after[1:])


def test_infer_keeps_ratings_of_images_that_are_not_asked_again(run_main, make_data_root):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in root.ids[:3]])
    assert run_main("infer.py", *flags).code == 0
    first = read_jsonl(root.ratings("lighting"))
    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in root.ids[2:]])
    ran = run_main("infer.py", *flags, "--resume")
    assert ran.code == 0, ran.err
    lines = read_jsonl(root.ratings("lighting"))
    assert [folders.image_id(line["images"][0]) for line in lines] == [*root.ids[:2], *root.ids[2:]]
    assert lines[:3] == first


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_addition_that_is_interrupted_loses_nothing(run_main, make_data_root, stop_after, interrupted):
    """Rated, then run on other images and interrupted, then resumed: the same bytes as without an interruption."""
    root = make_data_root(["lighting"], ids=list("abcdef"), mos=["1", "2", "3", "4", "5", "3"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in "ab"])
    assert run_main("infer.py", *flags).code == 0
    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in "cdef"])
    if interrupted:
        stop_after(2, KeyboardInterrupt)
        assert run_main("infer.py", *flags, "--resume").code == 130
        stop_after(99, KeyboardInterrupt)
    assert run_main("infer.py", *flags, "--resume").code == 0
    ids = [folders.image_id(line["images"][0]) for line in read_jsonl(root.ratings("lighting"))]
    assert ids == list("abcdef")


def test_kept_scores_are_never_removed_unasked(run_main, rooms, tmp_path, stop_after, monkeypatch):
    monkeypatch.setattr("saiqa.scorer.CHUNK_IMAGES", 1)
    command = ["score_images.py", *rooms, *MODEL, "--output_csv", tmp_path / "o.csv"]
    stop_after(3, KeyboardInterrupt)
    ran = run_main(*command)
    assert ran.code == 130 and "3 rated images are kept" in ran.err
    partial = folders.partial_path(tmp_path / "o.csv")
    kept = partial.read_bytes()
    stop_after(99, KeyboardInterrupt)
    for number in (1, 2):
        assert run_main(*command).code == 0
        aside = partial.with_name(f"{partial.name}.{number}")
        assert aside.read_bytes() == kept and not partial.exists()
        partial.write_bytes(kept)
    whole = (tmp_path / "o.csv").read_bytes()
    ran = run_main(*command, "--resume")
    assert "3 of 5 images are scored already" in ran.err
    assert (tmp_path / "o.csv").read_bytes() == whole


# ---- data roots ------------------------------------------------------------------------------------------------------


def test_a_data_root_that_is_not_there_is_an_error(run_main, rooms, tmp_path):
    flags = ["--model_path", SMALL_BUNDLE, "--device", "cpu"]
    for root in (tmp_path / "SA-BENHC", "http://127.0.0.1:9/SA-BENCH", "memory://nowhere"):
        ran = run_main("score_images.py", rooms[0], *flags, "--data_root", root)
        assert ran.code == 2 and len(ran.err.strip().splitlines()) == 1, ran.err
        with pytest.raises(InputError):
            Scorer(SMALL_BUNDLE, device="cpu", data_root=root)
    ran = run_main("serve.py", *flags, "--port", "0", "--data_root", tmp_path / "SA-BENHC")
    assert ran.code == 2 and "SA-BENHC is not there" in ran.err


def test_the_sentences_of_a_data_root_behind_a_url_are_asked(make_data_root):
    import fsspec

    root = make_data_root()
    memory = fsspec.filesystem("memory")
    for dimension in facts.DIMENSIONS:
        asked = record(dimension, "007", query=f"<image>How is the {dimension}?")
        memory.pipe(f"/asked/annotations/{root.jsonl(dimension).name}", json.dumps(asked).encode())
    scorer = Scorer(SMALL_BUNDLE, device="cpu", data_root="memory://asked")
    assert scorer.sentences["layout"].query == "<image>How is the layout?"
    assert scorer.prompt_source == "the annotations in memory://asked/annotations"


# ---- a busy machine --------------------------------------------------------------------------------------------------

PROBE = """
import os, sys
sys.path[:0] = [{tools!r}, {here!r}]
from saiqa import engines
engines.ENGINES["probe"] = "probe_engine:Probe"
import {command}
from saiqa.cli.console import run
sys.argv[0] = "{command}.py"
sys.exit(run({command}.main, {arguments!r} + ["--engine", "probe"]))
"""
PROBE_ENGINE = """
import os, sys
from saiqa.errors import Failed

class Probe:
    def __init__(self, *args, **options):
        raise Failed(f"spins {os.environ.get('GOMP_SPINCOUNT')}, torch {'torch' in sys.modules}")
"""


@pytest.mark.parametrize("command", ["infer", "score_images", "serve"])
def test_threads_do_not_wait_awake_for_long_in_any_command(command, rooms, make_data_root, tmp_path):
    """Set before torch is imported, when it is read; the user's own value stays."""
    (tmp_path / "probe_engine.py").write_text(PROBE_ENGINE)
    arguments = {
        "infer": [*map(str, make_data_root(["lighting"]).flags), "--dimension", "lighting"],
        "score_images": [str(rooms[0]), *map(str, MODEL)],
        "serve": [*map(str, MODEL), "--port", "0"],
    }[command]
    script = PROBE.format(tools=str(TOOLS), here=str(tmp_path), command=command, arguments=arguments)
    for given, wanted in ((None, "3000"), ("77", "77")):
        env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        env |= {"GOMP_SPINCOUNT": given} if given else {}
        ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
        assert f"spins {wanted}, torch False" in ran.stderr, ran.stderr
