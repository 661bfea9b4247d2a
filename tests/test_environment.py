"""Checks of the environment, the project's root, and `python -m vmlite`."""

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

import vmlite
from vmlite import __main__, environment
from vmlite.environment import MEND, check_environment, device_name, find_device, problems, project_path

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def pretend(monkeypatch):
    """Let packages have other versions than they do: None is a missing one."""

    def call(**versions):
        real = metadata.version

        def version(name):
            if name in versions and versions[name] is None:
                raise metadata.PackageNotFoundError(name)
            return versions.get(name) or real(name)

        monkeypatch.setattr(metadata, "version", version)

    return call


def test_nothing_is_wrong_here():
    assert problems() == []
    check_environment()
    vmlite.check_environment()


def test_version_that_does_not_match_is_named_with_the_mend(pretend):
    pretend(torchvision="0.27.1")
    with pytest.raises(ImportError, match=r"torchvision is 0\.27\.1 \(torchvision==0\.26\.\* needed\)") as raised:
        check_environment()
    assert MEND in str(raised.value)
    assert "pip install -e ." in str(raised.value)


def test_missing_package_is_named(pretend):
    pretend(kornia=None)
    [problem] = problems()
    assert problem.startswith("kornia is missing (kornia==")


def test_every_problem_is_named(pretend):
    pretend(kornia=None, torch="1.0", papermill="0.1")
    found = problems()
    assert sorted(problem.split()[0] for problem in found) == ["kornia", "papermill", "torch"]
    with pytest.raises(ImportError) as raised:
        check_environment()
    assert all(problem in str(raised.value) for problem in found)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("numpy>=999", ["numpy is"]),
        ("nosuchpackage>=1", ["nosuchpackage is missing (nosuchpackage>=1 needed)"]),
        ("nosuchpackage; extra == 'dev'", []),
        ("nosuchpackage; python_version < '3'", []),
        ("numpy", []),
    ],
)
def test_stated_requirements_decide(monkeypatch, stated, expected):
    monkeypatch.setattr(metadata, "requires", lambda name: [stated])
    found = problems()
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True))


def test_local_and_development_versions_of_torch_fit(pretend):
    pretend(torch="2.11.0+cu130")
    assert problems() == []
    pretend(torch="2.11.0.dev20260101")
    assert problems() == []


def test_the_torch_packages_are_pinned_to_each_other():
    pinned = {r.name: str(r.specifier) for r in map(Requirement, metadata.requires("vmlite"))}
    assert all(pinned[name].startswith("==") for name in environment.TORCH)


def test_a_torchaudio_of_newer_torch_is_refused(pretend):
    """2.11.1 asks for torch 2.11 or newer, and fails at import with 2.11.0."""
    pretend(torchaudio="2.11.1")
    assert problems() == ["torchaudio is 2.11.1 (torchaudio==2.11.0 needed)"]


def test_vmlite_itself_not_installed(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    with pytest.raises(ImportError, match="vmlite itself is not installed"):
        check_environment()


def test_packaging_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert problems() == ["packaging is missing"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("undefined symbol: _ZN3c10\nand more"), "(OSError: undefined symbol: _ZN3c10)"),
        (RuntimeError("operator torchvision::nms does not exist"), "(RuntimeError: operator torchvision::nms"),
        (ImportError(), "(ImportError: )"),
    ],
    ids=["OSError", "RuntimeError", "without words"],
)
def test_torch_package_that_fails_at_import(monkeypatch, error, text):
    real = importlib.import_module

    def fail(name, *args):
        if name == "torchaudio":
            raise error
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", fail)
    [problem] = problems()
    assert problem.startswith(f"torchaudio {metadata.version('torchaudio')} fails at import {text}")
    assert "\n" not in problem


def test_checking_imports_nothing_that_may_be_missing():
    """`import vmlite` works where torch does not."""
    program = "import sys, vmlite; sys.exit(bool({'torch', 'numpy', 'packaging'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_versions_are_those_installed():
    found = environment.versions()
    assert found["torch"] == metadata.version("torch")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"vmlite", "torchvision", "torchaudio", "numpy", "scikit-learn", "kornia"} <= set(found)


# python -m vmlite


def test_main_says_that_all_is_well(capsys):
    assert __main__.main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("vmlite is ready. ")
    assert f"torch {metadata.version('torch')}" in printed
    assert "device: " in printed


def test_main_lists_problems_and_the_mend(pretend, capsys):
    pretend(kornia=None, torch="1.0")
    assert __main__.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" is ")[0] for line in lines[:-1]] == ["problem: torch", "problem: kornia"]
    assert lines[-1] == MEND


# Folders


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project elsewhere: the folder of package and notebooks."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "project" / "vmlite" / "environment.py"))
    return tmp_path / "project"


def test_relative_paths_are_below_the_projects_root(root, tmp_path, monkeypatch):
    for folder in (tmp_path, root / "notebooks"):
        monkeypatch.chdir(folder)
        assert project_path("data") == root / "data"
        assert project_path(Path("runs") / "mine") == root / "runs" / "mine"


def test_absolute_paths_stay(root, tmp_path):
    assert project_path(tmp_path / "data") == tmp_path / "data"


def test_without_notebooks_the_current_folder_is_the_root(root, tmp_path, monkeypatch):
    (root / "notebooks").rmdir()
    monkeypatch.chdir(tmp_path)
    assert project_path("data") == tmp_path / "data"


def test_this_projects_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_path("data") == ROOT / "data"


# Devices


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert find_device() == find_device("auto") == torch.device(expected)
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
def test_absent_device_is_named(name):
    with pytest.raises(ValueError, match=f"device '{name}' is not available here .*; use 'cpu'"):
        find_device(name)


def test_name_of_a_cpu_and_of_a_gpu(monkeypatch):
    assert device_name("cpu").startswith("cpu: ")
    assert device_name("cpu").endswith(f", {torch.get_num_threads()} threads")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card as {device}")
    assert device_name("cuda:0") == "a card as cuda:0"
