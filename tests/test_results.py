"""Rows, results.json and its tables."""

import json
import math
import os

import pytest

from vmlite import environment, results
from vmlite.recipes import Recipe
from vmlite.results import FIELDS, SCHEMA, UNTRAINED, read, row, table, value_of, write

RECIPE = Recipe(dataset="spirograph", eps=0.2, norm=2.0, update="joint", encoder_width=16, seed=4)


def make(views="viewmaker", metric="linear_accuracy", value=50.0, recipe=RECIPE, **fields):
    return row(recipe, "spirograph", views, metric, value, 200, **fields)


def save(folder, rows=(), **changes):
    arguments = {
        "notebook": "02_images",
        "preset": "quick",
        "params": {"eps": 0.2},
        "device": "cpu",
        "seconds": 12.345,
    }
    return write(folder, list(rows), **(arguments | changes))


# Rows


@pytest.mark.parametrize("views", ["viewmaker", "noise", "expert:crop-flip", "expert+viewmaker", *UNTRAINED])
def test_every_row_has_exactly_the_fields(views):
    assert tuple(make(views)) == FIELDS


def test_a_viewmakers_row_says_what_was_run():
    assert make(value=51.23456) == {
        "dataset": "spirograph", "views": "viewmaker", "objective": "simclr", "eps": 0.2, "norm": 2.0, "update": "joint",
        "encoder": "resnet18-w16", "target": "spirograph", "task": "class", "split": "test", "labels": "all",
        "condition": None, "metric": "linear_accuracy", "value": 51.2346, "n": 200, "seed": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ("noise", {"objective": "simclr", "eps": 0.2, "norm": 2.0, "update": None, "seed": 4}),
        ("expert", {"objective": "simclr", "eps": None, "norm": None, "update": None, "seed": 4}),
        ("expert:crop-flip", {"objective": "simclr", "eps": None, "norm": None, "update": None}),
        ("expert+viewmaker", {"objective": "simclr", "eps": 0.2, "norm": 2.0, "update": "joint"}),
        ("expert+noise", {"objective": "simclr", "eps": 0.2, "norm": 2.0, "update": None}),
        ("raw-input", {"objective": None, "eps": None, "norm": None, "update": None, "encoder": None, "seed": None}),
        ("random-encoder", {"objective": None, "eps": None, "norm": None, "update": None, "encoder": "resnet18-w16"}),
        ("supervised", {"objective": None, "eps": None, "norm": None, "update": None, "seed": 4}),
    ],
)
def test_rows_carry_only_what_applies_to_their_views(views, expected):
    made = make(views)
    assert {name: made[name] for name in expected} == expected


def test_infinite_norm_is_written_as_text():
    assert make(recipe=RECIPE.replace(norm=math.inf))["norm"] == "inf"


def test_further_fields_replace_the_defaults():
    made = make(target="photos", condition="fog:3", labels="first half")
    assert (made["target"], made["condition"], made["labels"]) == ("photos", "fog:3", "first half")
    assert made["dataset"] == "spirograph"
    assert tuple(made) == FIELDS


def test_unknown_field_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="a row has no field colour, size; it has dataset, views") as raised:
        make(size=3, colour="red")
    assert all(name in str(raised.value) for name in FIELDS)


# Writing and reading


def test_round_trip(tmp_path):
    rows = [make("noise", value=40), make("raw-input", value=30)]
    path = save(tmp_path / "new" / "folder", rows)
    assert path == tmp_path / "new" / "folder" / "results.json"
    document = read(path)
    assert document == read(path.parent) == read(str(path))
    assert document["rows"] == rows
    expected = {"schema": SCHEMA, "notebook": "02_images", "preset": "quick", "params": {"eps": 0.2}, "seconds": 12.3}
    assert {name: document[name] for name in expected} == expected
    assert set(document) == {*expected, "device", "versions", "recipe", "rows"}
    assert document["versions"] == environment.versions()
    assert document["device"].startswith("cpu: ")


def test_infinite_norm_makes_strict_json(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    rows = [make(recipe=RECIPE.replace(norm=math.inf))]
    path = save(tmp_path, rows, params={"norm": math.inf, "eps": 0.1, "views": "noise", "resume": False})
    document = json.loads(path.read_text(), parse_constant=refuse)
    assert document["params"] == {"norm": "inf", "eps": 0.1, "views": "noise", "resume": False}
    assert Recipe().replace(norm=document["params"]["norm"]).norm == math.inf


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    save(tmp_path, [make(value=1)])
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, [make(value=math.nan)])
    assert [r["value"] for r in read(tmp_path)["rows"]] == [1]
    assert os.listdir(tmp_path) == ["results.json"]


def test_writing_replaces_the_old_file_at_once(tmp_path, monkeypatch):
    """Killed before the last moment, the old file is whole; the new one is complete when it takes its place."""
    save(tmp_path, [make(value=1)])
    replaced = []

    def killed(source, target):
        replaced.append(json.loads(source.read_text())["rows"][0]["value"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, [make(value=2)])
    assert replaced == [2]
    assert read(tmp_path)["rows"][0]["value"] == 1
    save(tmp_path, [make(value=3)])
    assert read(tmp_path)["rows"][0]["value"] == 3
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("content", ["", '{"schema": 1, "rows": [', "[]", "3", '"text"', "{}", "\x00\x01"], ids=repr)
def test_damaged_file(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json is not a readable results\.json"):
        read(tmp_path)


def test_damaged_bytes(tmp_path):
    (tmp_path / "results.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="not a readable"):
        read(tmp_path)


def test_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / "other.json"):
        with pytest.raises(ValueError, match=r"json is not a readable results\.json .*No such file"):
            read(path)


def test_other_schema(tmp_path):
    path = save(tmp_path)
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    with pytest.raises(ValueError, match=f"schema 99, this version of vmlite reads {SCHEMA}"):
        read(path)


def test_gather_takes_every_run_below_a_folder(tmp_path):
    save(tmp_path / "b", [make(value=2), make(value=3)], preset="small")
    save(tmp_path / "a" / "deeper", [make(value=1)])
    found = results.gather(tmp_path)
    assert [(r["value"], r["preset"], r["run"]) for r in found] == [
        (1, "quick", "deeper"),
        (2, "small", "b"),
        (3, "small", "b"),
    ]
    assert results.gather(tmp_path / "nothing") == []


# Tables


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_table_has_a_line_for_each_view_and_a_column_for_each_metric():
    rows = [
        make("raw-input", value=31.26),
        make("viewmaker", value=60.04),
        make("viewmaker", "knn_accuracy", 55),
    ]
    assert cells(table(rows)) == [
        ["views", "linear_accuracy", "knn_accuracy"],
        ["---", "---:", "---:"],
        ["raw-input", "31.3", ""],
        ["viewmaker", "60.0", "55.0"],
    ]


def test_table_lines_up():
    rows = [make("raw-input", value=5), make("expert:crop-flip+viewmaker", "m", 60), make("noise", value=7, seed=1)]
    rows.append(make("noise", value=9, seed=2))
    lines = table(rows).splitlines()
    bars = [[i for i, letter in enumerate(line) if letter == "|"] for line in lines]
    assert len(lines) == 5
    assert all(positions == bars[0] for positions in bars)
    assert len(bars[0]) == 4


def test_table_shows_mean_and_standard_deviation_over_seeds():
    rows = [make(value=value, seed=seed) for seed, value in enumerate((50.0, 52.0, 57.0))]
    assert cells(table(rows))[2] == ["viewmaker", "53.0 ± 3.6"]  # the sample's deviation, sqrt(26 / 2)


def test_table_by_other_fields():
    rows = [
        make(recipe=RECIPE.replace(eps=eps, norm=norm), value=value)
        for eps, norm, value in ((0.05, 1, 40), (0.05, math.inf, 41), (0.2, 1, 42))
    ]
    assert cells(table(rows, index=("views", "eps"), columns="norm")) == [
        ["views", "eps", "1", "inf"],
        ["---", "---", "---:", "---:"],
        ["viewmaker", "0.05", "40.0", "41.0"],
        ["viewmaker", "0.2", "42.0", ""],
    ]


def test_table_of_missing_values_leaves_cells_empty():
    assert cells(table([make("raw-input", value=30)], index=("views", "eps", "encoder")))[2] == [
        "raw-input", "", "", "30.0",
    ]  # fmt: skip


def test_value_of_is_the_mean_of_the_rows_that_match():
    rows = [make(value=50, seed=0), make(value=54, seed=1), make("noise", value=10, seed=0)]
    assert value_of(rows, views="viewmaker") == 52
    assert value_of(rows, views="viewmaker", seed=1) == 54
    assert value_of(rows, seed=0) == 30


def test_value_of_nothing_says_what_was_asked():
    with pytest.raises(ValueError, match=r"no row has views=expert, seed=3\."):
        value_of([make()], views="expert", seed=3)


def test_main_gives_a_column_to_what_the_trained_rows_differ_in(tmp_path, capsys):
    recipe = Recipe(dataset="spirograph")
    for eps in (0.05, 0.1):
        rows = [
            results.row(recipe, "spirograph", "raw-input", "linear_accuracy", 30, 100),
            results.row(recipe.replace(eps=eps), "spirograph", "viewmaker", "linear_accuracy", 100 * eps, 100),
        ]
        results.write(tmp_path / str(eps), rows, notebook="n", preset="quick", params={}, device="cpu", seconds=1)
    results.main([str(tmp_path / "0.05"), str(tmp_path / "0.1")])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["views", "eps", "linear_accuracy"]
    assert ["viewmaker", "0.05", "5.0"] in lines
    assert ["viewmaker", "0.1", "10.0"] in lines


def test_the_recipe_is_kept_with_the_rows(tmp_path):
    recipe = Recipe(norm=math.inf, epochs=3)
    path = results.write(tmp_path, [], notebook="n", preset="quick", params={}, device="cpu", seconds=1, recipe=recipe)
    assert Recipe.from_json(json.dumps(read(path)["recipe"])) == recipe
