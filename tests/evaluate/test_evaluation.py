"""--full, --table, --report and --compare of the two evaluating commands."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
from html.parser import HTMLParser

import numpy
import pytest
from PIL import Image
from scipy import stats

from chromium import AXE_NEEDED, NEEDED, show, started, violations
from helpers import SMALL_BUNDLE, run_command, write_csv, write_jsonl
from saiqa import facts
from saiqa.evaluate import tables

COMMAND = "evaluate_correlation.py"
ROWS = 40
MEASURES = ("plcc", "srcc", "krcc", "rmse", "plcc_logistic")


def scored_rows(dimension: str, seed: int, noise: float = 0.5) -> list[dict]:
    number = list(facts.DIMENSIONS).index(dimension)
    draw = numpy.random.default_rng([seed, number])
    mos = numpy.random.default_rng(number).uniform(1, 5, ROWS).round(2)
    scores = (mos + draw.normal(0, noise, ROWS)).clip(1, 5).round(4)
    rows = zip(mos, scores, strict=True)
    generators = ("flux|1", "sd_3 & co")
    return [
        {"id": f"{i:03d}", f"{dimension}_score_mos": m, "model": generators[i % 2], "score_pred": s}
        for i, (m, s) in enumerate(rows)
    ]


@pytest.fixture
def write_results(tmp_path):
    """Write scored tables of a model for some dimensions into one results folder."""
    return functools.partial(write_tables, tmp_path / "results")


def write_tables(
    folder, name="sa-iqa-prompt4", seed=0, noise=0.5, dimensions=tuple(facts.DIMENSIONS), change=lambda rows: rows
):
    for dimension in dimensions:
        write_csv(folder / facts.result_name(dimension, 4, name, ".csv"), change(scored_rows(dimension, seed, noise)))
    return folder


# ---- --full and --table ----------------------------------------------------------------------------------------------


def test_full_keeps_the_two_lines_and_adds_a_table(write_results, run_main):
    results = write_results()
    plain = run_main(COMMAND, "--results_dir", results)
    full = run_main(COMMAND, "--results_dir", results, "--full")
    assert (plain.code, full.code) == (0, 0), full.err
    assert re.fullmatch(r"PLCC: 0\.\d{3}\nSRCC: 0\.\d{3}\n", plain.out)
    assert full.out.startswith(plain.out + "\n")
    lines = [line.split() for line in full.out.splitlines()[3:]]
    assert lines[0] == ["dimension", "generator", "n", "dropped", "PLCC", "SRCC", "KRCC", "RMSE", "PLCC", "(logistic)"]
    assert [line[0] for line in lines[1:16]] == [d for d in (*facts.DIMENSIONS, "all") for _ in range(3)]
    assert "95% intervals, percentile bootstrap over rows, 2000 resamples, seed 0" in full.out
    assert "(VQEG)" in full.out


def test_the_figures_are_those_of_the_rows_by_generator_and_pooled(write_results, run_main):
    ran = run_main(COMMAND, "--results_dir", write_results(), "--full", "--json")
    assert ran.code == 0, ran.err
    found = {(e["dimension"], e["generator"]): e for e in ran.json["evaluation"]}
    assert len(found) == 15
    assert ran.json["bootstrap"] == {"confidence": 0.95, "resamples": 2000, "seed": 0}
    rows = [row for d in facts.DIMENSIONS for row in scored_rows(d, 0)]
    for generator in (None, "flux|1", "sd_3 & co"):
        lighting = [row for row in scored_rows("lighting", 0) if generator in (None, row["model"])]
        columns = [[float(row[name]) for row in lighting] for name in ("score_pred", "lighting_score_mos")]
        entry = found["lighting", generator]
        assert (entry["n"], entry["dropped"]) == (len(lighting), 0)
        assert entry["plcc"] == pytest.approx(stats.pearsonr(*columns).statistic)
        assert entry["srcc"] == pytest.approx(stats.spearmanr(*columns).statistic)
        assert entry["krcc"] == pytest.approx(stats.kendalltau(*columns).statistic)
        assert set(entry["intervals"]) == set(MEASURES)
        assert found["all", generator]["n"] == len([r for r in rows if generator in (None, r["model"])])
    assert ran.json["plcc"] == found["all", None]["plcc"]


def test_one_generator_is_no_line_of_its_own(write_results, run_main):
    results = write_results(change=lambda rows: [{**row, "model": "flux"} for row in rows])
    ran = run_main(COMMAND, "--results_dir", results, "--full", "--json")
    assert [(e["dimension"], e["generator"]) for e in ran.json["evaluation"]] == [(d, None) for d in (*facts.DIMENSIONS, "all")]


def test_rows_without_a_score_are_counted_in_the_table_and_listed(write_results, run_main):
    results = write_results(change=lambda rows: [{**rows[0], "score_pred": ""}, *rows[1:]])
    ran = run_main(COMMAND, "--results_dir", results, "--full", "--json")
    assert ran.code == 3
    assert {e["dimension"]: e["dropped"] for e in ran.json["evaluation"] if e["generator"] is None} == {
        **dict.fromkeys(facts.DIMENSIONS, 1), "all": 4,
    }  # fmt: skip
    assert ran.err.count("000: no score_pred") == 4


def test_a_dimension_without_figures_says_why(write_results, run_main):
    results = write_results()
    write_results(dimensions=["layout"], change=lambda rows: [{**row, "score_pred": 3} for row in rows])
    ran = run_main(COMMAND, "--results_dir", results, "--full")
    assert ran.code == 0
    line = next(line.split() for line in ran.out.splitlines() if line.startswith("layout"))
    assert line[2:] == ["40", "0", "-", "-", "-", "-", "-"]
    assert "layout: no figures: all 40 predictions are 3" in ran.out


def test_markdown_and_latex(write_results, run_main):
    results = write_results()
    markdown = run_main(COMMAND, "--results_dir", results, "--table", "markdown").out.splitlines()
    assert markdown[3].startswith("| dimension | generator | n | dropped | PLCC |")
    rows = [line for line in markdown if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}
    assert any("flux\\|1" in row for row in rows)
    latex = run_main(COMMAND, "--results_dir", results, "--table", "latex").out
    assert latex.count(r" \\") == 16 and r"\begin{tabular}{llrrrrrrr}" in latex
    assert r"sd\_3 \& co" in latex


def test_negative_figures_in_latex_get_a_minus():
    cells = [tables.figure(-0.14, (-0.391, 0.167)), tables.figure(None), "a-b"]
    line = tables.lines(tables.LATEX, ["x", "y", "z"], [cells], [], labels=0)[4]
    assert line == r"$-$0.140 [$-$0.391, 0.167] & -- & a-b \\"


def test_infer_evaluates_fully_too(write_results, run_main):
    results = write_results(name=SMALL_BUNDLE.name)
    flags = ["--mode", "eval", "--results_dir", results, "--model_path", SMALL_BUNDLE]
    ran = run_main("infer.py", *flags, "--dimension", "lighting", "--full")
    assert ran.code == 0, ran.err
    assert [line.split(":")[0] for line in ran.out.splitlines()[:2]] == ["PLCC", "SRCC"]
    assert [line.split()[0] for line in ran.out.splitlines()[4:7]] == ["lighting"] * 3
    ran = run_main("infer.py", *flags, "--json", "--full")
    assert {e["dimension"] for e in ran.json["evaluation"]} == {*facts.DIMENSIONS, "all"}


@pytest.mark.parametrize("flag", [["--full"], ["--table", "latex"], ["--report", "x.html"]])
def test_an_evaluation_needs_a_mode_that_evaluates(run_main, flag):
    ran = run_main("infer.py", "--mode", "score", *flag)
    assert (ran.code, ran.out) == (2, "") and "Use --mode eval or all" in ran.err


# ---- --report --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report over images that are there, but for one that is missing and one that is broken."""
    folder = tmp_path_factory.mktemp("report")
    results, root = write_tables(folder / "results"), folder / "bench"
    draw = numpy.random.default_rng(0)
    for dimension in facts.DIMENSIONS:
        images = root / facts.IMAGES_FOLDER.format(dimension=dimension)
        images.mkdir(parents=True)
        for i in range(ROWS):
            Image.fromarray(draw.integers(0, 255, (60, 80, 3), dtype="uint8")).save(images / f"{i:03d}.png")
    record = {"model_path": "/models/<mine>", "engine": {"engine": "prefill"}, "n": ROWS, "command": "infer.py --x"}
    (results / "harmony_prompt4_sa-iqa-prompt4.run.json").write_text(json.dumps(record))
    worst = sorted(
        ((abs(r["score_pred"] - r[f"{d}_score_mos"]), d, r["id"]) for d in facts.DIMENSIONS for r in scored_rows(d, 0)),
        reverse=True,
    )[:10]
    paths = [root / facts.IMAGES_FOLDER.format(dimension=d) / f"{i}.png" for _, d, i in worst]
    paths[0].unlink()
    paths[1].write_bytes(b"no image")
    ran = run_command(COMMAND, "--results_dir", results, "--data_root", root, "--report", folder / "report.html")
    assert ran.code == 0, ran.err
    return folder / "report.html", worst


def test_the_report_is_one_file_with_words_for_every_picture(report):
    path, worst = report
    text = path.read_text()
    page = Page(text)
    images = page.all("img")
    assert len(images) == 10 + 8  # scatter and histogram of four dimensions and the pool; thumbnails that there are
    assert all(image["src"].startswith("data:") and len(image["alt"]) > 20 for image in images)
    assert not page.all("script") and not page.all("link") and not re.search(r"https?://", text)
    for size, dimension, image_id in worst[2:]:
        assert any(f"Image {image_id}, {dimension}" in image["alt"] for image in images), (size, dimension, image_id)
    assert "is not there" in text and "cannot read" in text
    thumbnail = next(image["src"] for image in images if "jpeg" in image["src"])
    assert Image.open(io.BytesIO(base64.b64decode(thumbnail.partition(",")[2]))).size == (80, 60)


def test_the_report_tells_how_the_scores_were_made(report):
    text = report[0].read_text()
    assert "/models/&lt;mine&gt;" in text and "engine prefill" in text and "infer.py --x" in text
    assert text.count("Nothing tells how they were made") == 3
    assert text.count("infer.py --x") == 2  # said once, and in its record
    assert "flux|1" in text and "sd_3 &amp; co" in text and "seed 0" in text


def test_images_are_found_by_the_paths_in_the_ratings(write_results, run_main, tmp_path):
    results = write_results(dimensions=["lighting"], name=SMALL_BUNDLE.name)
    (tmp_path / "bench" / "elsewhere").mkdir(parents=True)
    for i in range(ROWS):
        Image.new("RGB", (30, 20), "red").save(tmp_path / "bench" / "elsewhere" / f"{i:03d}.jpg")
    ratings = results / facts.result_name("lighting", 4, SMALL_BUNDLE.name, ".jsonl")
    write_jsonl(ratings, [{"images": [f"SA-BENCH/elsewhere/{i:03d}.jpg"]} for i in range(ROWS)])
    flags = ["--mode", "eval", "--dimension", "lighting", "--results_dir", results, "--model_path", SMALL_BUNDLE]
    report = tmp_path / "r.html"
    ran = run_main("infer.py", *flags, "--data_root", tmp_path / "bench", "--report", report)
    assert ran.code == 0, ran.err
    assert len([i for i in Page(report.read_text()).all("img") if "jpeg" in i["src"]]) == 10


@NEEDED
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(report, tmp_path, width):
    browser = started(tmp_path / "profile")
    try:
        phone = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(report[0].as_uri())
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        drawn = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 0)")
        assert len(drawn) == 18 and all(drawn)
        assert browser.execute_script("return performance.getEntriesByType('resource').map(r => r.name)"
                                      ".filter(n => !n.startsWith('data:'))") == []  # fmt: skip
        assert browser.get_log("browser") == []
        table = browser.find_element("css selector", "table.lines")
        assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].parentElement.clientWidth", table)
    finally:
        browser.quit()


@NEEDED
@AXE_NEEDED
def test_the_report_is_accessible(report, tmp_path):
    browser = started(tmp_path / "profile")
    try:
        for width, scheme in ((1280, "light"), (390, "dark")):
            show(browser, width, scheme)
            browser.get(report[0].as_uri())
            assert violations(browser) == []
    finally:
        browser.quit()


def test_a_report_that_cannot_be_written_is_refused_first(write_results, run_main, tmp_path):
    (tmp_path / "folder.html").mkdir()
    ran = run_main(COMMAND, "--results_dir", write_results(), "--report", tmp_path / "folder.html")
    assert (ran.code, ran.out) == (1, "") and "it is a folder" in ran.err
    ran = run_main(COMMAND, "--results_dir", write_results(), "--report", tmp_path / "x.pdf")
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1 and "does not end in .html" in ran.err


# ---- --compare -------------------------------------------------------------------------------------------------------


def test_two_models_are_compared(write_results, run_main):
    results = write_results()
    write_results(name="worse", seed=1, noise=1.5)
    ran = run_main(COMMAND, "--results_dir", results, "--compare", "sa-iqa-prompt4", "worse", "--json")
    assert ran.code == 0, ran.err
    found = {entry["dimension"]: entry for entry in ran.json["comparison"]}
    assert set(found) == {*facts.DIMENSIONS, "all"} and found["all"]["n"] == 4 * ROWS
    for measure in ("plcc", "srcc"):
        pooled = found["all"][measure]
        assert pooled["low"] > 0 and pooled["p"] < 0.01
        assert pooled["difference"] == pytest.approx(pooled["first"] - pooled["second"])
    text = run_main(COMMAND, "--results_dir", results, "--compare", "sa-iqa-prompt4", "worse").out
    assert [line.split()[0] for line in text.splitlines()[1:6]] == [*facts.DIMENSIONS, "all"]
    assert "A is sa-iqa-prompt4, B is worse; images left out: 0 that only A has, 0 only B." in text


def test_images_of_one_run_only_are_counted(write_results, run_main):
    results = write_results()
    write_results(name="part", dimensions=["layout"], change=lambda rows: [*rows[:30], {**rows[0], "id": "new"}])
    one = results / facts.result_name("layout", 4, "part", ".csv")
    ran = run_main(COMMAND, "--results_dir", results, "--compare", one, "sa-iqa-prompt4", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["only_in_a"], ran.json["only_in_b"]) == (1, 4 * ROWS - 30)
    assert [entry["n"] for entry in ran.json["comparison"]] == [30]


def test_merged_tables_are_compared_and_gaps_listed(write_results, run_main, tmp_path):
    results = write_results(change=lambda rows: [{**rows[0], "score_pred": ""}, *rows[1:]])
    assert run_main(COMMAND, "--results_dir", results).code == 3
    merged = results / "all_prompt4_sa-iqa-prompt4.csv"
    ran = run_main(COMMAND, "--compare", merged, merged, "--table", "markdown")
    assert ran.code == 3
    assert ran.out.splitlines()[-1 - 4].startswith("| all | 156 | 4 |")
    assert "lighting 000: no score_pred" in ran.err


def test_runs_against_other_opinions_are_refused(write_results, run_main):
    results = write_results()
    write_results(name="b", change=lambda rows: [{**r, **{k: 3 for k in r if k.endswith("mos")}} for r in rows])
    ran = run_main(COMMAND, "--results_dir", results, "--compare", "sa-iqa-prompt4", "b")
    assert (ran.code, ran.out) == (2, "") and "have another MOS in b" in ran.err


@pytest.mark.parametrize(
    ("other", "says"),
    [("nothing", "is neither a file nor a model"), ("empty.csv", "0 dimensions"), ("far", "no image in common")],
)
def test_what_cannot_be_compared(write_results, run_main, tmp_path, monkeypatch, other, says):
    monkeypatch.chdir(tmp_path)
    results = write_results()
    write_results(name="far", change=lambda rows: [{**row, "id": row["id"] + "x"} for row in rows])
    write_csv(tmp_path / "empty.csv", [{"id": "1", "score_pred": "2"}])
    ran = run_main(COMMAND, "--results_dir", results, "--compare", "sa-iqa-prompt4", other)
    assert (ran.code, ran.out) == (2, "") and says in ran.err


def test_a_comparison_is_no_report(run_main):
    ran = run_main(COMMAND, "--compare", "a", "b", "--full")
    assert ran.code == 2 and "--compare goes with --table and --json only" in ran.err
