"""--compare of evaluate_correlation.py: two runs over the same images."""

from __future__ import annotations

import pytest

from helpers import write_csv
from saiqa import facts
from scored_tables import COMMAND, ROWS


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
    assert ran.code == 2 and "--compare can only be combined with" in ran.err
