"""--full and --table of the two evaluating commands."""

from __future__ import annotations

import re

import pytest
from scipy import stats

from helpers import SMALL_BUNDLE
from saiqa import facts
from saiqa.evaluate import tables
from scored_tables import COMMAND, scored_rows

MEASURES = ("plcc", "srcc", "krcc", "rmse", "plcc_logistic")


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
