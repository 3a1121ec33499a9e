"""The other columns of a list stay with the scores in every kind of run; the means by generator."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from helpers import read_csv, read_jsonl, write_csv, write_jsonl
from saiqa import facts

SCORES = [*facts.DIMENSIONS, "overall", "error"]


@pytest.fixture
def score(score, tmp_path, monkeypatch):
    """Run the command on the small bundle, in a folder with pictures r00.png to r11.png."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        Image.new("RGB", (64, 48), (20 * number, 255 - 20 * number, 90)).save(tmp_path / f"r{number:02}.png")
    return score


def listing(n=3, **more):
    """Rows of a list: the first n pictures, two prompts, seeds with leading zeros."""
    columns = {"prompt": lambda i: f"a {'large, bright' if i % 2 else 'small'} room", "seed": lambda i: f"{i:03}", **more}
    return [{"image": f"r{i:02}.png", **{name: make(i) for name, make in columns.items()}} for i in range(n)]


def test_every_column_stays_in_both_results_and_groups(score, run_main, tmp_path):
    write_csv(tmp_path / "list.csv", listing())
    ran = score("list.csv", "--output_csv", "o.csv", "--output_jsonl", "o.jsonl")
    assert ran.code == 0, ran.err
    rows, lines = read_csv(tmp_path / "o.csv"), read_jsonl(tmp_path / "o.jsonl")
    assert list(rows[0]) == ["image", "prompt", "seed", *SCORES]
    assert [{name: row[name] for name in ("image", "prompt", "seed")} for row in rows] == listing()
    assert [{name: line[name] for name in ("image", "prompt", "seed")} for line in lines] == listing()
    assert all(line["images"] == [line["image"]] for line in lines)
    for scored in ("o.csv", "o.jsonl"):
        ran = run_main("best_of_n.py", scored, "--group_by", "prompt", "--json")
        assert ran.code == 0, ran.err
        assert [one["group"] for one in ran.json["kept"]] == ["a small room", "a large, bright room"]
        ranking = read_csv(tmp_path / "o_ranking.csv")
        assert {row["image"]: row["seed"] for row in ranking} == {row["image"]: row["seed"] for row in rows}


def test_values_of_a_jsonl_keep_their_kind(score, tmp_path):
    said = {"seed": 7, "tags": ["a", "ö"], "listing": None, "sold": True}
    write_jsonl(tmp_path / "list.jsonl", [{"path": "r00.png", **said}, {"path": "r01.png", "only": "here"}])
    ran = score("list.jsonl", "--image_column", "path", "--output_csv", "o.csv", "--output_jsonl", "o.jsonl")
    assert ran.code == 0, ran.err
    one, two = read_jsonl(tmp_path / "o.jsonl")
    assert {name: one[name] for name in said} == said and one["path"] == "r00.png" and two["only"] == "here"
    one, two = read_csv(tmp_path / "o.csv")
    assert list(one) == ["image", "path", *said, "only", *SCORES]
    assert (one["seed"], one["tags"], one["listing"], one["sold"], one["only"]) == ("7", '["a", "ö"]', "", "true", "")
    assert two["only"] == "here"


def test_a_finished_result_that_is_continued_keeps_them(score, tmp_path):
    whole = (tmp_path / "r01.png").read_bytes()
    (tmp_path / "r01.png").write_text("no picture")
    write_csv(tmp_path / "list.csv", listing())
    assert score("list.csv", "--output_csv", "o.csv").code == 3
    (tmp_path / "r01.png").write_bytes(whole)
    write_csv(tmp_path / "more.csv", [{"image": "r05.png", "model": "sdxl"}])
    # r01 is scored again, without its list; r00 and r02 are not named
    ran = score("r01.png", "more.csv", "--output_csv", "o.csv", "--resume")
    assert ran.code == 0, ran.err
    rows = {row["image"]: row for row in read_csv(tmp_path / "o.csv")}
    assert list(rows["r00.png"])[:4] == ["image", "model", "prompt", "seed"]
    assert {name: (row["prompt"], row["seed"], row["model"]) for name, row in rows.items()} == {
        **{row["image"]: (row["prompt"], row["seed"], "") for row in listing()},
        "r05.png": ("", "", "sdxl"),
    }
    assert not any(row["error"] for row in rows.values())


def test_a_list_named_again_has_the_last_word(score, tmp_path):
    write_csv(tmp_path / "list.csv", listing())
    score("list.csv", "--output_jsonl", "o.jsonl")
    before = read_jsonl(tmp_path / "o.jsonl")
    write_csv(tmp_path / "list.csv", listing(seed=lambda i: "new"))
    ran = score("list.csv", "--output_jsonl", "o.jsonl", "--resume")
    assert "3 of 3 images are scored already" in ran.err
    assert read_jsonl(tmp_path / "o.jsonl") == [{**line, "seed": "new"} for line in before]


def test_an_interrupted_run_keeps_them(score, tmp_path, stop_after):
    from saiqa.scorer import CHUNK_IMAGES

    n = CHUNK_IMAGES + 2
    for number in range(12, n):
        (tmp_path / f"r{number:02}.png").write_bytes((tmp_path / "r03.png").read_bytes())
    write_csv(tmp_path / "list.csv", listing(n))
    stop_after(1, KeyboardInterrupt)
    asked = ["--dimension", "layout", "--output_csv", "o.csv"]
    assert score("list.csv", *asked).code == 130
    kept = (tmp_path / "o.csv.partial").read_text().splitlines()[1:]
    assert kept and all(json.loads(line)["listed"]["seed"] for line in kept)
    stop_after(10**6, KeyboardInterrupt)
    assert score("list.csv", *asked, "--resume").code == 0
    rows = read_csv(tmp_path / "o.csv")
    assert [{name: row[name] for name in ("image", "prompt", "seed")} for row in rows] == listing(n)


# ---- columns that cannot be kept, and the advice ---------------------------------------------------------------------


def test_a_name_that_the_results_have_is_refused(score, tmp_path):
    write_csv(tmp_path / "list.csv", listing(layout=lambda i: "4", notes=lambda i: "n"))
    ran = score("list.csv", "--output_csv", "o.csv")
    assert (ran.code, ran.out) == (2, "") and "a list has layout, which the results use themselves" in ran.err
    assert "--keep_columns 'prompt,seed,notes'" in ran.err
    ran = score("list.csv", "--output_jsonl", "o.jsonl")
    assert ran.code == 2 and "a list has layout, notes, which" in ran.err
    assert score("list.csv", "--output_csv", "o.csv", "--keep_columns", "seed,notes").code == 0
    assert list(read_csv(tmp_path / "o.csv")[0]) == ["image", "seed", "notes", *SCORES]
    assert score("list.csv", "--output_csv", "o.csv", "--resume", "--keep_columns", "").code == 0
    assert list(read_csv(tmp_path / "o.csv")[0]) == ["image", "seed", "notes", *SCORES]
    ran = score("list.csv", "--keep_columns", "sed")
    assert ran.code == 2 and "no list has sed. They have" in ran.err


def test_an_image_with_two_prompts_is_refused(score, tmp_path):
    write_csv(tmp_path / "list.csv", [*listing(2), {**listing()[0], "prompt": "another"}])
    ran = score("list.csv")
    assert ran.code == 2 and "r00.png is listed more than once, with prompt 'a small room' and 'another'" in ran.err
    write_csv(tmp_path / "list.csv", [*listing(2), listing()[0]])
    ran = score("list.csv")
    assert ran.code == 0 and "1 images are named more than once and used once" in ran.err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "l.csv",
            "room,photo_url\nhall,r00.png\n",
            "has no column image. Its columns are room, photo_url: --image_column photo_url",
        ),
        ("l.csv", "a b\nc\n", "Its columns are a b: --image_column 'a b'"),
        ("l.jsonl", '{"room": 1, "photo": "r00.png"}\n', "line 1 has no image. Its keys are room, photo: --image_column photo"),
        ("l.jsonl", '{"images": []}\n', '"images" is not a list of one path'),
        ("l.txt", "\n", "l.txt is empty"),
    ],
)
def test_errors_of_lists_name_the_flag(score, tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    ran = score(name)
    assert (ran.code, ran.out) == (2, "") and says in ran.err and ran.err.count("\n") == 1


def test_a_text_has_one_path_a_line(score, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "in.png").write_bytes((tmp_path / "r00.png").read_bytes())
    (tmp_path / "sub" / "list.txt").write_text("in.png\n\nr01.png\n")
    ran = score("sub/list.txt", "--json", "--dimension", "layout")
    assert [one["image"] for one in ran.json["images"]] == ["sub/in.png", "r01.png"], ran.err


# ---- generators ------------------------------------------------------------------------------------------------------


def test_the_means_of_each_generator(score, tmp_path):
    import numpy

    write_csv(
        tmp_path / "list.csv",
        [*listing(12, model=lambda i: "few" if i < 2 else "many"), {**listing()[0], "image": "gone.png", "model": "few"}],
    )
    ran = score("list.csv", "--json")
    assert ran.code == 3
    images = {one["image"]: one for one in ran.json["images"]}
    many, few = sorted(ran.json["generators"], key=lambda one: -one["n"])
    assert (many["name"], many["n"], many["unscored"]) == ("many", 10, 0)
    assert (few["name"], few["n"], few["unscored"], few["intervals"]) == ("few", 2, 1, {})
    values = [images[f"r{i:02}.png"]["scores"]["layout"] for i in range(2, 12)]
    assert many["means"]["layout"] == pytest.approx(numpy.mean(values))
    low, high = many["intervals"]["layout"]
    draws = numpy.random.default_rng(1).choice(values, (20000, 10)).mean(1)
    spread = numpy.std(values)
    assert [low, high] == pytest.approx(numpy.quantile(draws, [0.025, 0.975]), abs=0.1 * spread)
    text = score("list.csv").out.split("\n\n")[1].splitlines()
    assert text[0].split() == ["model", "n", "unscored", *facts.DIMENSIONS, "overall"]
    assert {line.split()[0] for line in text[1:3]} == {"few", "many"} and "bootstrap over images" in text[3]


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_is_the_csv_with_numbers(score, run_main, tmp_path):
    import pandas

    (tmp_path / "r01.png").write_text("no picture")
    write_csv(tmp_path / "list.csv", listing())
    assert score("list.csv", "--output_csv", "o.csv", "--probabilities").code == 3
    assert score("list.csv", "--output_csv", "o.parquet", "--probabilities").code == 3
    rows, table = read_csv(tmp_path / "o.csv"), pandas.read_parquet(tmp_path / "o.parquet")
    assert list(table) == list(rows[0]) and list(table["seed"]) == ["000", "001", "002"]
    assert table["layout"].dtype == "float64" and table["layout_good"].dtype == "float64"
    assert list(table["overall"].isna()) == [False, True, False]
    assert table["overall"][2] == pytest.approx(float(rows[2]["overall"]), abs=1e-6)

    Image.new("RGB", (64, 48)).save(tmp_path / "r01.png")
    ran = score("list.csv", "--output_csv", "o.parquet", "--probabilities", "--resume", "--json")
    assert ran.code == 0 and "2 of 3 images are scored already" in ran.err
    assert ran.json["output_parquet"] == "o.parquet"
    again = pandas.read_parquet(tmp_path / "o.parquet")
    assert list(again["layout"])[::2] == list(table["layout"])[::2] and not again["overall"].isna().any()
    ran = run_main("best_of_n.py", "o.parquet", "--group_by", "prompt", "--output_csv", "ranking.parquet")
    assert ran.code == 0, ran.err
    ranking = pandas.read_parquet(tmp_path / "ranking.parquet")
    assert list(ranking["kept"]).count("1") == 2 and ranking["overall"].dtype == "float64"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"image,layout\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet(run_main, tmp_path, content):
    (tmp_path / "o.parquet").write_bytes(content)
    ran = run_main("best_of_n.py", tmp_path / "o.parquet")
    assert ran.code == 2 and "is not a complete Parquet file" in ran.err and ran.err.count("\n") == 1
