"""Is everything installed, and does it match? Uses the standard library alone until the torch packages are tried."""

from __future__ import annotations

import importlib
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TORCH = ("torch", "torchvision", "torchaudio")
MEND = "Mend it from the project's folder with:  pip install -e ."


def check_environment() -> None:
    """Raise ImportError naming each package that is missing, of a version that does not fit, or fails at import."""
    wrong = problems()
    if wrong:
        raise ImportError("this environment cannot run vmlite: " + "; ".join(wrong) + f".\n{MEND}")


def problems() -> list[str]:
    """What is wrong with the environment, one phrase each; empty where all is well."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ["packaging is missing"]
    try:
        stated = metadata.requires("vmlite") or []
    except metadata.PackageNotFoundError:
        return ["vmlite itself is not installed"]
    wrong = []
    for requirement in (Requirement(text) for text in stated):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing ({requirement} needed)")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found} ({requirement} needed)")
    return wrong or [p for p in map(_import_problem, TORCH) if p]


def versions() -> dict[str, str]:
    """Versions that decide a run's numbers, for `results.json`."""
    names = ("vmlite", *TORCH, "numpy", "scikit-learn", "kornia")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def project_path(path: str | Path) -> Path:
    """`path` as it is where absolute, else below the project's root, wherever the process was started.

    The root is the folder that holds this package and the notebooks; for a package installed without them it is the
    current folder.
    """
    root = Path(__file__).resolve().parent.parent
    return (root if (root / "notebooks").is_dir() else Path.cwd()) / Path(path).expanduser()


def find_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one. Raises ValueError where it is absent."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available here ({str(error).splitlines()[0]}); use 'cpu'.") from error
    return device


def device_name(device: str) -> str:
    """A device's name for `results.json`, such as "NVIDIA H200" or "cpu: AMD EPYC, 2 threads"."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return f"cpu: {found[1] if found else platform.processor() or 'unknown'}, {torch.get_num_threads()} threads"


def _import_problem(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except Exception as error:  # a mismatched binary raises OSError or RuntimeError as well as ImportError
        first = str(error).partition("\n")[0]
        return f"{name} {metadata.version(name)} fails at import ({type(error).__name__}: {first})"
    return None
