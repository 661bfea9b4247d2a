"""Results: every run ends in one `results.json`, whose flat rows fill every table."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vmlite.environment import device_name, versions
from vmlite.recipes import Recipe

SCHEMA = 1
FIELDS = (
    "dataset", "views", "objective", "eps", "norm", "update", "encoder",
    "target", "task", "split", "labels", "condition", "metric", "value", "n", "seed",
)  # fmt: skip
UNTRAINED = ("raw-input", "random-encoder", "supervised")
Row = dict[str, Any]


def row(recipe: Recipe, dataset: str, views: str, metric: str, value: float, n: int, **fields: Any) -> Row:
    """One measured value: of `views` on data set `dataset`, from `n` evaluation examples.

    `views` is the recipe's, or one of UNTRAINED, which have no objective, budget or update. Further fields replace the
    defaults: the target is the data set itself, the task "class", the split "test", all labels, no condition.
    """
    learned = views not in UNTRAINED
    budget = learned and any(term in views for term in ("viewmaker", "noise"))
    made = {
        "dataset": dataset,
        "views": views,
        "objective": recipe.objective if learned else None,
        "eps": recipe.eps if budget else None,
        "norm": (recipe.norm if math.isfinite(recipe.norm) else "inf") if budget else None,
        "update": recipe.update if "viewmaker" in views else None,
        "encoder": None if views == "raw-input" else f"{recipe.encoder}-w{recipe.encoder_width}",
        "target": dataset,
        "task": "class",
        "split": "test",
        "labels": "all",
        "condition": None,
        "metric": metric,
        "value": round(float(value), 4),
        "n": n,
        "seed": None if views == "raw-input" else recipe.seed,
    }
    if unknown := set(fields) - set(made):
        raise ValueError(f"a row has no field {', '.join(sorted(unknown))}; it has {', '.join(FIELDS)}.")
    return made | fields


def write(
    out_dir: Path,
    rows: Sequence[Row],
    *,
    notebook: str,
    preset: str,
    params: dict[str, Any],
    device: str,
    seconds: float,
    recipe: Recipe | None = None,
) -> Path:
    """Write `results.json` into `out_dir`, replacing an older one at once. Returns its path."""
    document = {
        "schema": SCHEMA,
        "notebook": notebook,
        "preset": preset,
        "recipe": json.loads(recipe.to_json()) if recipe else None,
        "params": {k: "inf" if v == math.inf else v for k, v in params.items()},
        "device": device_name(device),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "rows": list(rows),
    }
    path = Path(out_dir) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)
    return path


def read(path: str | Path) -> dict[str, Any]:
    """A `results.json`, or the one in a folder. Raises ValueError where it is missing, damaged or of another schema."""
    file = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    try:
        document = json.loads(file.read_text())
        schema = document["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a readable results.json ({error}).") from error
    if schema != SCHEMA:
        raise ValueError(f"{file} has schema {schema}, this version of vmlite reads {SCHEMA}.")
    return document


def gather(folder: str | Path) -> list[Row]:
    """The rows of every `results.json` below `folder`, each with its run's "preset" and "run", the file's folder."""
    files = sorted(Path(folder).rglob("results.json"))
    return [
        r | {"preset": document["preset"], "run": file.parent.name}
        for file, document in ((file, read(file)) for file in files)
        for r in document["rows"]
    ]


def table(rows: Iterable[Row], index: Sequence[str] = ("views",), columns: str = "metric") -> str:
    """Rows as a Markdown table: one line for each value of `index`, one column for each of `columns`.

    Where several rows fall into one cell (seeds), it shows their mean and standard deviation.
    """
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    heads: list[str] = []
    for r in rows:
        line = cells.setdefault(tuple(_text(r[key]) for key in index), {})
        head = _text(r[columns])
        line.setdefault(head, []).append(r["value"])
        if head not in heads:
            heads.append(head)
    lines = [[*index, *heads], ["---"] * len(index) + ["---:"] * len(heads)]
    lines += [[*key, *(_cell(line.get(head, [])) for head in heads)] for key, line in cells.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def value_of(rows: Iterable[Row], **wanted: Any) -> float:
    """The mean value of the rows that match every given field. Raises ValueError where none does."""
    found = [r["value"] for r in rows if all(r[key] == value for key, value in wanted.items())]
    if not found:
        raise ValueError(f"no row has {', '.join(f'{k}={v}' for k, v in wanted.items())}.")
    return statistics.fmean(found)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def main(paths: Sequence[str]) -> None:
    """Print the rows of the given files as one table, with a column for each field in which they differ."""
    rows = [r for path in paths for r in read(path)["rows"]]
    fields = (
        "dataset",
        "target",
        "task",
        "views",
        "objective",
        "eps",
        "norm",
        "update",
        "encoder",
        "labels",
        "condition",
    )
    trained = [r for r in rows if r["views"] not in UNTRAINED]
    print(table(rows, [f for f in fields if f == "views" or len({r[f] for r in trained}) > 1]))


if __name__ == "__main__":
    main(sys.argv[1:])
