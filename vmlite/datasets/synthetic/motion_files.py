"""Generated recordings as files in the format of Pamap2."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vmlite.datasets.synthetic.motions import COLUMNS, PARTICIPANTS, Array, record


def write(folder: Path, seed: int = 0, progress: bool = True) -> None:
    """Write `Protocol/subject101.dat` to `subject109.dat` into `folder`, each at once or not at all.

    The format is Pamap2's: a row every 10 ms, 54 columns, one space between them, "NaN" where a value is missing.
    """
    protocol = folder / "Protocol"
    protocol.mkdir(parents=True, exist_ok=True)
    for participant in tqdm(PARTICIPANTS, desc="generating recordings", disable=not progress, leave=False):
        path = protocol / f"subject{participant}.dat"
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(text(record(participant, seed)))
        os.replace(part, path)


def text(rows: Array) -> bytes:
    """Rows (T, 54) as a file's bytes: two decimals for the time, whole numbers for activity and heart rate, else three.

    The time must be below 10,000, other values below 1,000.

    A value is put together from tables of four bytes: its sign and whole part, its decimals, and what follows it. Zero
    bytes pad them and are left out in the end. `np.savetxt` takes four times as long.
    """
    made = np.empty((len(rows), COLUMNS, 3), dtype="S4")
    missing = np.isnan(rows)
    thousandths = np.abs(np.rint(np.where(missing, 0, rows) * 1000)).astype(np.int64)
    whole, decimals = np.divmod(thousandths, 1000)
    negative = (rows < 0) & (thousandths > 0)
    made[..., 0] = _WHOLE[whole % 1000 + 1000 * negative]
    made[:, 0, 0] = whole[:, 0].astype("S4")  # times go beyond a thousand
    made[..., 1] = _DECIMALS[decimals]
    made[:, 0, 1] = _HUNDREDTHS[decimals[:, 0] // 10]
    made[..., 1:3, 1] = b""
    made[missing, 0], made[missing, 1] = b"NaN", b""
    made[..., 2] = b" "
    made[:, -1, 2] = b"\n"
    flat = made.view(np.uint8).ravel()
    return flat[flat != 0].tobytes()


_WHOLE = np.array([f"{sign}{i}" for sign in ("", "-") for i in range(1000)], dtype="S4")
_DECIMALS = np.array([f".{i:03d}" for i in range(1000)], dtype="S4")
_HUNDREDTHS = np.array([f".{i:02d}" for i in range(100)], dtype="S4")
