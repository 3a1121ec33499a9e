"""Images and annotations behind URLs: file://, memory://, and a real HTTP server on loopback."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from helpers import IDS, NO_ANNOTATIONS, SMALL_BUNDLE, read_jsonl, record, write_jsonl
from saiqa.errors import InputError
from saiqa.files import folders, places
from saiqa.scorer import Scorer


def rated(root, run_main, *flags):
    """Run the infer stage, with additional flags if given; its output."""
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer", *flags)
    return ran, root.ratings("lighting").read_bytes() if root.ratings("lighting").exists() else b""


def copy_to_memory(folder: Path) -> str:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/bench/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return "memory://bench"


def without_stamp(line: bytes) -> dict:
    """A line without the stamp, as for a picture behind a URL, which has no size and time here."""
    return {key: value for key, value in json.loads(line).items() if key != "picture"}


def test_a_data_root_may_lie_anywhere(make_data_root, run_main, served):
    root = make_data_root(["lighting"])
    ran, local = rated(root, run_main)
    assert ran.code == 0, ran.err
    for data_root in (root.path.as_uri(), f"{served}/SA-BENCH", copy_to_memory(root.path)):
        root.ratings("lighting").unlink()
        ran, remote = rated(root, run_main, "--data_root", data_root)
        assert ran.code == 0, ran.err
        assert [*map(without_stamp, remote.splitlines())] == [without_stamp(line) for line in local.splitlines()]


def test_all_stages_read_a_data_root_behind_a_url(make_data_root, run_main, served):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--data_root", f"{served}/SA-BENCH")
    assert ran.code == 0, ran.err
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == ["PLCC", "SRCC"]


def test_single_images_may_be_urls_and_fail_alone(make_data_root, run_main, served):
    root = make_data_root(["lighting"])
    folder = f"{served}/SA-BENCH/images/lighting/images"
    root.image("lighting", "abc").write_bytes(b"no image")
    lines = [record("lighting", i, images=[f"{folder}/{i}.png?size=full"]) for i in IDS]
    lines.append(record("lighting", "gone", images=[f"{folder}/gone.png"]))
    lines[0] = record("lighting", "007", images=[root.image("lighting", "007").as_uri()])
    write_jsonl(root.jsonl("lighting"), lines)
    ran, written = rated(root, run_main)
    assert ran.code == 3
    assert "lighting abc: cannot read the image: 'http://127.0.0.1" in ran.err
    assert "lighting gone: cannot read the image: [Errno 2] the server has no such file (404): 'http" in ran.err
    assert written.count(b"\n") == len(IDS) - 1


def test_a_server_that_is_not_there_is_a_reason_and_no_traceback(make_data_root, run_main):
    root = make_data_root(["lighting"])
    write_jsonl(root.jsonl("lighting"), [record("lighting", i, images=[f"http://127.0.0.1:9/{i}.png"]) for i in IDS])
    ran, written = rated(root, run_main)
    assert (ran.code, written) == (3, b"")
    assert ran.err.count("cannot read the image") == len(IDS)


def test_pictures_behind_urls_are_scored_as_their_files(run_main, served, tmp_path):
    names = ["a b.png", "c.png", "d.png"]
    for seed, name in enumerate(names):
        Image.new("RGB", (64, 48), (40 * seed, 120, 200)).save(tmp_path / name)
    (tmp_path / "list.csv").write_text(f"image\n{served}/c.png\nd.png\n{served}/gone.png\n")
    urls = [f"{served}/a%20b.png?size=full", f"{served}/c.png", str(tmp_path / "d.png"), f"{served}/gone.png"]
    flags = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"]
    ran = run_main("score_images.py", urls[0], tmp_path / "list.csv", "--output_jsonl", tmp_path / "o.jsonl", *flags)
    assert ran.code == 3, ran.err
    *rows, gone = read_jsonl(tmp_path / "o.jsonl")
    assert [row["images"] for row in (*rows, gone)] == [[url] for url in urls]
    assert "no such file (404)" in gone["error"] and gone["overall"] is None
    scorer = Scorer(SMALL_BUNDLE, data_root=NO_ANNOTATIONS, device="cpu")
    local = scorer.score([tmp_path / name for name in names])
    for row, remote, here in zip(rows, scorer.score(urls), local, strict=False):
        assert row["scores"] == pytest.approx(here.scores, abs=1e-6)
        assert remote.scores == pytest.approx(here.scores, abs=1e-6)
    beside_a_picture = scorer.score([urls[0], Image.open(tmp_path / "c.png")])
    assert [result.error for result in beside_a_picture] == [None, None]


def test_a_list_behind_a_url_is_refused(run_main, served):
    ran = run_main("score_images.py", f"{served}/list.csv", "--model_path", SMALL_BUNDLE, "--device", "cpu")
    assert (ran.code, ran.out) == (2, "") and ran.err.endswith("Download it: lists must be local files\n")


def test_a_report_fetches_its_thumbnails(make_data_root, run_main, served, tmp_path):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--data_root", f"{served}/SA-BENCH"]
    assert run_main("infer.py", *flags).code == 0
    report = tmp_path / "report.html"
    for image_id, thumbnails, says in (("007", len(IDS), ""), ("abc", len(IDS) - 1, "abc.png is not there")):
        assert run_main("infer.py", *flags, "--mode", "eval", "--report", report).code == 0
        text = report.read_text()
        assert (text.count("data:image/jpeg"), says in text) == (thumbnails, True), image_id
        root.image("lighting", "abc").unlink(missing_ok=True)
    root.ratings("lighting").unlink()  # without it, the store is asked for every possible suffix
    nobody = [*root.flags, "--dimension", "lighting", "--mode", "eval", "--data_root", "http://127.0.0.1:9/SA-BENCH"]
    ran = run_main("infer.py", *nobody, "--report", report)
    assert (ran.code, "data:image/jpeg" in report.read_text()) == (0, False), ran.err
    assert report.read_text().count("cannot read http://127.0.0.1:9/SA-BENCH/images") == len(IDS)


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_protocol_without_its_package_says_what_to_install(make_data_root, run_main):
    root = make_data_root(["lighting"])
    ran, _ = rated(root, run_main, "--data_root", "s3://bucket/bench")
    assert (ran.code, ran.out) == (2, "")
    assert "s3:// cannot be read here: " in ran.err and ran.err.endswith("Run `pip install s3fs`\n")
    assert ran.err.count("\n") == 1


def test_unknown_protocols_and_remote_results_are_refused(make_data_root, run_main):
    root = make_data_root(["lighting"])
    ran, _ = rated(root, run_main, "--data_root", "nowhere://bucket")
    assert (ran.code, "not a protocol that fsspec knows" in ran.err) == (2, True)
    ran, _ = rated(root, run_main, "--results_dir", "memory://results")
    assert (ran.code, "results can only be written to local folders" in ran.err) == (2, True)


def test_a_remote_data_root_without_the_annotations_names_them(make_data_root, run_main, served):
    ran, _ = rated(make_data_root(["lighting"]), run_main, "--data_root", f"{served}/nowhere")
    assert (ran.code, f"{served}/nowhere/annotations/lighting_3k_test_prompt4.jsonl is not there" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("s3://bucket/a#1.png", "a#1"),
        ("https://host/x/a%20b.png?signature=1.2#top", "a b"),
        ("memory://x/007.tar.png", "007.tar"),
        ("images/.hidden", ".hidden"),
    ],
)
def test_the_id_of_a_url_is_its_file_name(image, expected):
    assert folders.image_id(image) == expected


def test_where_an_image_path_leads(tmp_path):
    remote = places.place("memory://bench")
    assert str(folders.resolve_image("SA-BENCH/images/a.png", remote)) == "memory://bench/images/a.png"
    assert str(folders.resolve_image("images/a.png", remote)) == "memory://bench/images/a.png"
    assert folders.resolve_image("./SA-BENCH//images/a.png", tmp_path) == tmp_path / "images/a.png"
    assert folders.resolve_image("file:///data/a%20b.png", remote) == Path("/data/a b.png")
    with pytest.raises(InputError):
        folders.resolve_image("nowhere://a.png", tmp_path)
