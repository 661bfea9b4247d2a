"""Notebook parameters, as a notebook's globals hold them and as papermill really passes them."""

import ast
import json
import math
from pathlib import Path

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command

from vmlite import environment
from vmlite.environment import project_path
from vmlite.evaluate import METRICS
from vmlite.parameters import COMMON, as_bool, read_parameters
from vmlite.recipes import preset

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


@pytest.fixture
def read(tmp_path):
    """`read_parameters` for a notebook that sets these globals, its out_dir a temporary one."""

    def call(**namespace):
        return read_parameters({"out_dir": str(tmp_path), "device": "cpu"} | namespace, "images", "02_images")

    return call


def test_a_parameter_that_only_other_notebooks_have_is_refused(read):
    own = "eps = None\nseed = None"
    assert read(In=["", own, "# Parameters\nseed = 3\n"], seed=3).recipe.seed == 3
    with pytest.raises(ValueError, match="unknown parameter 'metrics'; choose from eps, seed"):
        read(In=["", own, "# Parameters\nmetrics = 'knn_accuracy'\n"], metrics="knn_accuracy")


def test_nothing_given_means_the_quick_preset(read, tmp_path):
    settings = read()
    assert settings.preset == "quick"
    assert settings.recipe == preset("quick", device="cpu")
    assert [arm.views for arm in settings.arms] == ["noise", "viewmaker"]
    assert (settings.supervised, settings.resume, settings.out_dir) == (False, False, tmp_path)
    assert settings.metrics
    assert set(settings.metrics) <= set(METRICS)
    assert settings.notebook == "02_images"


@pytest.mark.parametrize("name", ["quick", "small", "paper"])
def test_none_means_the_presets_value(read, name):
    settings = read(**dict.fromkeys(set(COMMON) - {"preset", "out_dir", "device"}), preset=name)
    assert settings.recipe == preset(name, device="cpu")
    assert set(settings.params) == {"preset", "out_dir", "device"}


def test_given_values_replace_the_presets(read):
    given = {"eps": 0.3, "epochs": 3, "seed": 9, "update": "joint", "dataset": "spirograph", "batch_norm": "each"}
    settings = read(preset="paper", norm=2, **given)
    assert settings.recipe == preset("paper", norm=2.0, device="cpu", **given)
    assert settings.params["eps"] == 0.3


def test_defaults_of_a_notebook_yield_to_its_parameters(tmp_path):
    namespace = {"out_dir": str(tmp_path), "epochs": 5, "device": "cpu"}
    settings = read_parameters(namespace, "images", "02_images", epochs=2, temperature=0.5)
    assert (settings.recipe.epochs, settings.recipe.temperature) == (5, 0.5)


def test_other_globals_are_left_alone(read):
    assert read(epsilon=3, weight_of_nothing=-1, In=["epsilon = 3"]).recipe == preset("quick", device="cpu")


def test_views_are_a_comma_list_of_arms(read):
    settings = read(views=" noise, expert:crop-flip+viewmaker ,supervised,", eps=0.2)
    assert [arm.views for arm in settings.arms] == ["noise", "expert:crop-flip+viewmaker"]
    assert settings.supervised
    assert all(arm == settings.recipe.replace(views=arm.views) for arm in settings.arms)
    assert all(arm.eps == 0.2 for arm in settings.arms)


def test_each_arm_has_a_checkpoint_of_its_own(read, tmp_path):
    settings = read(views="viewmaker,viewmaker:untrained,expert+viewmaker,expert:crop-flip")
    files = [settings.checkpoint(arm) for arm in settings.arms]
    assert len(set(files)) == 4
    assert all(file.parent == tmp_path and ":" not in file.name for file in files)


def test_metrics_are_a_comma_list(read):
    assert read(metrics="knn_accuracy, linear_accuracy").metrics == ("knn_accuracy", "linear_accuracy")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"eps": 0}, "eps must be a positive number"),
        ({"eps": -0.1}, "eps must be a positive number"),
        ({"eps": math.nan}, "eps must be a positive number"),
        ({"eps": "small"}, "eps must be a positive number .*'small'"),
        ({"eps": True}, "eps must be a positive number"),
        ({"preset": "papre"}, "unknown preset 'papre'.* Did you mean 'paper'"),
        ({"dataset": "cifar"}, "unknown dataset 'cifar'.* Did you mean 'cifar10'"),
        ({"norm": 3}, "norm must be one of 1, 2, inf"),
        ({"norm": "l2"}, "norm must be one of 1, 2, inf"),
        ({"views": "noise,viewmakr"}, "unknown views 'viewmakr'.* Did you mean 'viewmaker'"),
        ({"views": ""}, "views names none"),
        ({"views": " , "}, "views names none"),
        ({"metrics": "knn"}, "unknown metric 'knn'.*knn_accuracy"),
        ({"objective": "simclear"}, "unknown objective 'simclear'.* Did you mean 'simclr'"),
        ({"update": "both"}, "unknown update 'both'"),
        ({"batch_norm": "apart"}, "unknown batch_norm 'apart'; choose from both, each"),
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"epochs": "ten"}, "epochs must be a positive whole number, got 'ten'"),
        ({"batch_size": 0}, "batch_size must be a positive whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"resume": "maybe"}, "resume must be true or false, got 'maybe'"),
        ({"device": "gpu"}, "device 'gpu' is not available"),
    ],
)
def test_bad_values_are_refused(read, parameter, message):
    with pytest.raises(ValueError, match=message):
        read(**parameter)


def test_unknown_parameter_in_papermills_cell_is_refused(read):
    own = "\n".join(f"{name} = None" for name in COMMON)
    with pytest.raises(ValueError, match="unknown parameter 'epsilon'") as raised:
        read(In=["", own, "# Parameters\neps = 0.1\nepsilon = 0.1\n", "read_parameters(...)"])
    assert all(name in str(raised.value) for name in COMMON)
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        read(In=["# Parameters\nbatchsize = 3\n"])


def test_known_parameters_in_papermills_cell_are_fine(read):
    assert read(In=["# Parameters\neps = 0.1\nnorm = float('inf')\n"], eps=0.1).recipe.eps == 0.1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(value, True) for value in (True, "true", "True", "1", 1)]
    + [(value, False) for value in (False, "false", "FALSE", "0", 0, None, "None")],
)
def test_booleans_and_their_texts(read, value, expected):
    assert as_bool("resume", value) is expected
    assert read(resume=value).resume is expected


@pytest.mark.parametrize("value", ["yes", "", "tru", 2, [True]])
def test_other_values_are_no_booleans(value):
    with pytest.raises(ValueError, match="switch must be true or false"):
        as_bool("switch", value)


# Folders


def test_out_dir_is_made(read, tmp_path):
    assert read(out_dir=str(tmp_path / "a" / "b")).out_dir == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_out_dir_that_cannot_be_made(read, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        with pytest.raises(ValueError, match=r"out_dir .* cannot be written to .*choose another folder") as raised:
            read(out_dir=str(tmp_path / folder))
        assert str(tmp_path / folder) in str(raised.value)


def test_relative_out_dir_means_the_projects_root(read, tmp_path, monkeypatch):
    """From any current folder. The root is the folder of package and notebooks; here another one is put in its place."""
    root, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (root / "notebooks").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.setattr(environment, "__file__", str(root / "vmlite" / "environment.py"))
    for folder in (elsewhere, root / "notebooks", root):
        monkeypatch.chdir(folder)
        assert read(out_dir="runs/mine").out_dir == root / "runs" / "mine"
        assert read(out_dir=None).out_dir == root / "runs" / "02_images"
    assert list(elsewhere.iterdir()) == []


# What papermill really passes


def prepare(folder: Path, *options: str):
    """The notebook that `papermill in out OPTIONS` would execute, its parameters those that all notebooks share."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    literals = "\n".join(f"{name} = None" for name in COMMON)
    notebook.cells = [nbformat.v4.new_code_cell(literals, metadata={"tags": ["parameters"]})]
    nbformat.write(notebook, folder / "in.ipynb")
    arguments = [str(folder / "in.ipynb"), str(folder / "out.ipynb"), "--prepare-only", *options]
    result = CliRunner().invoke(papermill_command, arguments)
    assert result.exit_code == 0, result.output
    return nbformat.read(folder / "out.ipynb", 4)


def given_to_papermill(tmp_path, *pairs: str):
    """The settings of a notebook started with `-p NAME VALUE` for each of `pairs`, run as IPython runs its cells."""
    options = [part for pair in pairs for part in ("-p", *pair.split(" ", 1))]
    namespace = {"In": [""]}
    for cell in prepare(tmp_path, *options).cells:
        namespace["In"].append(cell.source)
        exec(cell.source, namespace)
    namespace |= {"out_dir": str(tmp_path), "device": "cpu"}
    return read_parameters(namespace, "images", "02_images")


def test_papermills_cell_begins_with_the_comment_that_is_looked_for(tmp_path):
    cells = prepare(tmp_path, "-p", "eps", "0.1").cells
    assert [cell.metadata.tags for cell in cells] == [["parameters"], ["injected-parameters"]]
    assert cells[1].source == "# Parameters\neps = 0.1\n"


def test_papermill_values(tmp_path):
    settings = given_to_papermill(
        tmp_path, "eps 0.1", "norm inf", "seed 1", "data_dir None", "resume true", "preset small", "views viewmaker"
    )
    assert settings.recipe == preset("small", eps=0.1, norm=math.inf, seed=1, device="cpu")
    assert settings.resume is True
    assert [arm.views for arm in settings.arms] == ["viewmaker"]


@pytest.mark.parametrize(("text", "norm"), [("1", 1.0), ("2", 2.0), ("2.0", 2.0), ("inf", math.inf), ("None", 1.0)])
def test_papermill_norms(tmp_path, text, norm):
    assert given_to_papermill(tmp_path, f"norm {text}").recipe.norm == norm


@pytest.mark.parametrize(
    ("text", "resume"), [("true", True), ("True", True), ("1", True), ("false", False), ("False", False), ("0", False)]
)
def test_papermill_booleans(tmp_path, text, resume):
    assert given_to_papermill(tmp_path, f"resume {text}").resume is resume


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("epsilon 0.1", "unknown parameter 'epsilon'"),
        ("eps nan", "eps must be a positive number"),
        ("eps 0", "eps must be a positive number"),
        ("eps small", "eps must be a positive number"),
        ("seed 1.5", "seed must be a whole number"),
        ("epochs 1e3", "epochs must be a positive whole number"),
        ("resume maybe", "resume must be true or false"),
    ],
)
def test_papermill_values_that_are_refused(tmp_path, pair, message):
    with pytest.raises(ValueError, match=message):
        given_to_papermill(tmp_path, pair)


def test_in_a_real_kernel_the_cell_is_found(tmp_path):
    """IPython's own `In`, from a kernel that papermill started and that knows nothing of vmlite."""
    prepared = prepare(tmp_path)
    prepared.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(In))"))
    nbformat.write(prepared, tmp_path / "in.ipynb")
    executed = papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", {"eps": 0.1, "epsilon": 0.1}, cwd=tmp_path, progress_bar=False
    )
    [output] = executed.cells[-1].outputs
    namespace = {"In": json.loads(output.text), "eps": 0.1, "out_dir": str(tmp_path), "device": "cpu"}
    with pytest.raises(ValueError, match="unknown parameter 'epsilon'"):
        read_parameters(namespace, "images", "02_images")


def test_a_presets_image_size_belongs_to_its_own_data(read):
    assert preset("quick").input_size is not None
    assert read(dataset="cifar10").recipe.input_size is None
    assert read(dataset="cifar10-jpeg", input_size=24).recipe.input_size == 24
    assert read(dataset="spirograph").recipe.input_size == preset("quick").input_size


def test_supervised_alone_is_refused(read):
    with pytest.raises(ValueError, match="views names none to pretrain"):
        read(views="supervised")


def test_floors_are_measured_unless_switched_off(read):
    assert read().floors
    assert not read(floors="false").floors


NOTEBOOKS = {"02_images": "images", "03_speech": "speech", "04_sensors": "sensors"}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_as_it_is_counts_as_written_so_that_it_checks_what_its_text_says(notebook, tmp_path):
    cells = nbformat.read(project_path(f"notebooks/{notebook}.ipynb"), 4).cells
    own = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    data = next(cell.source for cell in cells if "as_written = (" in cell.source)
    namespace = {}
    exec(own, namespace)
    namespace["settings"] = read_parameters(namespace | {"out_dir": str(tmp_path)}, NOTEBOOKS[notebook], notebook)
    wanted = [node for node in ast.parse(data).body if isinstance(node, ast.Assign)]
    wanted = [node for node in wanted if ast.unparse(node.targets[0]) in ("usual", "as_written")]
    exec("\n".join(map(ast.unparse, wanted)), namespace)
    assert namespace["as_written"]
