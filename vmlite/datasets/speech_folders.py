"""Where speech data sets keep their recordings and labels: each in its published layout, without reading audio."""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmlite.datasets.base import first_of
from vmlite.datasets.corpus import Recording

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")
PAPER_WINDOW = 150_526 / 16_000  # seconds, section 5.1


@dataclass(frozen=True)
class Folder:
    """A speech data set on disk.

    Attributes:
        find: lists the recordings below a folder; raises ValueError for what is missing or does not fit.
        sample_rate: to cache it at, in Hz.
        window_seconds: length of an example.
        tasks: names of its labels.
        hint: where to get it and where to put it, with {data_dir} for the folder.
        open_tasks: those whose test classes are not in the training split, so that they need a split of their own.
    """

    find: Callable[[Path], list[Recording]]
    sample_rate: int
    window_seconds: float
    tasks: tuple[str, ...]
    hint: str
    open_tasks: tuple[str, ...] = ()


def find_librispeech(dataset: str, subsets: Sequence[str], test_every: int, data_dir: Path) -> list[Recording]:
    """LibriSpeech/<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac (Panayotov et al. 2015).

    Every `test_every`-th recording of a speaker is for testing: 5 gives the paper's 80/20 split of dev-clean.
    """
    root = _place(data_dir, "LibriSpeech")
    found = []
    for subset in subsets:
        _demand(dataset, data_dir, root / subset)
        found += sorted((root / subset).glob("*/*/[!.]*.flac"))
    speakers = [file.parts[-3] for file in found]
    return _checked(dataset, data_dir, _every(test_every, found, [{"speaker": s} for s in speakers], speakers))


def find_voxceleb1(data_dir: Path) -> list[Recording]:
    """wav/<speaker>/<video>/<number>.wav and iden_split.txt (Nagrani et al. 2017); its validation part is left out."""
    root = _place(data_dir, "VoxCeleb1", "voxceleb1")
    _demand("voxceleb1", data_dir, root / "wav", root / "iden_split.txt")
    rows = re.findall(r"^([13])\s+(\S+)$", (root / "iden_split.txt").read_text(), re.MULTILINE)
    chosen = [(root / "wav" / name, "train" if part == "1" else "test") for part, name in rows]
    there = {folder.name for folder in (root / "wav").iterdir()}
    _demand("voxceleb1", data_dir, *sorted({f.parents[1] for f, _ in chosen if f.parts[-3] not in there}))
    return _checked("voxceleb1", data_dir, [Recording(f, {"speaker": f.parts[-3]}, split) for f, split in chosen])


def find_speech_commands(data_dir: Path) -> list[Recording]:
    """<word>/<speaker>_nohash_<number>.wav with testing_list.txt and validation_list.txt (Warden 2018).

    The validation list and the background noises are left out. No test speaker is heard in training.
    """
    version = "speech_commands_v0.02"
    root = _place(data_dir, f"SpeechCommands/{version}", version)
    lists = [root / "validation_list.txt", root / "testing_list.txt"]
    _demand("speech-commands", data_dir, *lists)
    validation, testing = (set(file.read_text().split()) for file in lists)
    files = {f"{f.parent.name}/{f.name}": f for f in sorted(root.glob("[!._]*/[!.]*_nohash_*.wav"))}
    _demand("speech-commands", data_dir, *(root / name for name in sorted(testing - set(files))))
    made = [
        Recording(
            file,
            {"word": file.parent.name, "speaker": file.name.split("_nohash_")[0]},
            "test" if name in testing else "train",
        )
        for name, file in files.items()
        if name not in validation
    ]
    return _checked("speech-commands", data_dir, made)


def find_fluent_speech_commands(data_dir: Path) -> list[Recording]:
    """data/{train,test}_data.csv with the paths of wavs/speakers/<speaker>/<id>.wav (Lugosch et al. 2019).

    The validation part is left out. No test speaker is heard in training.
    """
    dataset, root = "fluent-speech-commands", _place(data_dir, "fluent_speech_commands_dataset")
    made = []
    for split in ("train", "test"):
        table = root / "data" / f"{split}_data.csv"
        _demand(dataset, data_dir, table)
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = ("path", "speakerId", "action", "object", "location")
        if rows and (lacking := [name for name in columns if name not in rows[0]]):
            raise ValueError(f"{table} has no column {', '.join(lacking)}. {_hint(dataset, data_dir)}")
        for row in rows:
            labels = {task: row[task] for task in columns[2:]} | {"speaker": row["speakerId"]}
            made.append(Recording(root / row["path"], labels, split))
    return _checked(dataset, data_dir, made)


def find_audio_mnist(data_dir: Path) -> list[Recording]:
    """data/<speaker>/<digit>_<speaker>_<index>.wav (Becker et al. 2018): every fifth index is for testing."""
    root = _place(data_dir, "AudioMNIST") / "data"
    _demand("audio-mnist", data_dir, root)
    found = [(f, m) for f in sorted(root.glob("*/*.wav")) if (m := re.fullmatch(r"(\d)_(\d+)_(\d+)", f.stem))]
    made = [Recording(f, {"digit": m[1], "speaker": m[2]}, "test" if int(m[3]) % 5 == 4 else "train") for f, m in found]
    return _checked("audio-mnist", data_dir, made)


def find_spoken_digits(data_dir: Path) -> list[Recording]:
    """recordings/<digit>_<speaker>_<index>.wav (Free Spoken Digit Dataset): indices 0 to 4 are its test split."""
    root = _place(data_dir, "free-spoken-digit-dataset", "spoken-digits") / "recordings"
    _demand("spoken-digits", data_dir, root)
    found = [(f, m) for f in sorted(root.glob("*.wav")) if (m := re.fullmatch(r"(\d)_(.+)_(\d+)", f.stem))]
    made = [Recording(f, {"digit": m[1], "speaker": m[2]}, "test" if int(m[3]) < 5 else "train") for f, m in found]
    return _checked("spoken-digits", data_dir, made)


def find_audio_folder(data_dir: Path) -> list[Recording]:
    """train/<class>/ and test/<class>/, or <class>/ alone, of which every fifth recording is for testing."""
    _demand("audio-folder", data_dir, data_dir)
    parts = [name for name in ("train", "test") if (data_dir / name).is_dir()]
    if parts:
        _demand("audio-folder", data_dir, data_dir / "train", data_dir / "test")
    made = []
    for part in parts or ["."]:
        files, names = _labelled_files(data_dir / part)
        labels = [{"class": name} for name in names]
        if parts:
            made += [Recording(file, label, part) for file, label in zip(files, labels, strict=True)]
        else:
            made = _every(5, files, labels, names)
    return _checked("audio-folder", data_dir, made)


def _librispeech(dataset: str, test_every: int, *subsets: str) -> Folder:
    archives = ", ".join(f"{subset}.tar.gz" for subset in subsets)
    hint = f"Get {archives} from https://www.openslr.org/12 and unpack it in {{data_dir}}."
    find = functools.partial(find_librispeech, dataset, subsets, test_every)
    return Folder(find, 16_000, PAPER_WINDOW, ("speaker",), hint)


SPEECH_FOLDERS: dict[str, Folder] = {
    "librispeech-100": _librispeech("librispeech-100", 20, "train-clean-100"),
    "librispeech-960": _librispeech("librispeech-960", 20, "train-clean-100", "train-clean-360", "train-other-500"),
    "librispeech-dev": _librispeech("librispeech-dev", 5, "dev-clean"),
    "voxceleb1": Folder(
        find_voxceleb1,
        16_000,
        PAPER_WINDOW,
        ("speaker",),
        "Get the development and the test audio of VoxCeleb1 and iden_split.txt from "
        "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/ and put both wav folders, as one, and the list in {data_dir}.",
    ),
    "speech-commands": Folder(
        find_speech_commands,
        16_000,
        1.0,
        ("word", "speaker"),
        "Get http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz and unpack it in "
        "{data_dir}/speech_commands_v0.02.",
        open_tasks=("speaker",),
    ),
    "fluent-speech-commands": Folder(
        find_fluent_speech_commands,
        16_000,
        3.0,
        ("action", "object", "location", "speaker"),
        "Ask for it at https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research/ "
        "and unpack it in {data_dir}, so that there is {data_dir}/fluent_speech_commands_dataset.",
        open_tasks=("speaker",),
    ),
    "audio-mnist": Folder(
        find_audio_mnist,
        16_000,
        1.0,
        ("digit", "speaker"),
        "Get https://github.com/soerenab/AudioMNIST with git and put it in {data_dir}/AudioMNIST.",
    ),
    "spoken-digits": Folder(
        find_spoken_digits,
        8_000,
        1.0,
        ("digit", "speaker"),
        "Get https://github.com/Jakobovski/free-spoken-digit-dataset with git and put it in {data_dir}.",
    ),
    "audio-folder": Folder(
        find_audio_folder,
        16_000,
        2.0,
        ("class",),
        "data_dir must hold train/<class>/ and test/<class>/, or <class>/ alone, with recordings in them.",
    ),
}


def _place(data_dir: Path, *names: str) -> Path:
    """The first folder of these names below `data_dir`, else `data_dir` itself."""
    return next((data_dir / name for name in names if (data_dir / name).is_dir()), data_dir)


def _hint(dataset: str, data_dir: Path) -> str:
    return SPEECH_FOLDERS[dataset].hint.replace("{data_dir}", str(data_dir))


def _demand(dataset: str, data_dir: Path, *paths: Path) -> None:
    """Raise ValueError where some of the paths do not exist."""
    if missing := [str(path) for path in paths if not path.exists()]:
        raise ValueError(f"{dataset} lacks {first_of(missing)}. {_hint(dataset, data_dir)}")


def _every(n: int, files: Iterable[Path], labels: Iterable[dict[str, str]], groups: Iterable[str]) -> list[Recording]:
    """Recordings of which every n-th of each group is for testing."""
    seen: Counter[str] = Counter()
    made = []
    for file, label, group in zip(files, labels, groups, strict=True):
        seen[group] += 1
        made.append(Recording(file, label, "test" if seen[group] % n == 0 else "train"))
    return made


def _labelled_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Recordings at any depth below the folders of `folder`, and the names of these; hidden ones are left out."""
    found = [
        (file, part.name)
        for part in sorted(folder.glob("[!.]*"))
        if part.is_dir()
        for file in sorted(part.rglob("[!.]*"))
        if file.suffix.lower() in SUFFIXES
    ]
    return [file for file, _ in found], [name for _, name in found]


def _checked(dataset: str, data_dir: Path, recordings: list[Recording]) -> list[Recording]:
    """The recordings, if every task that is closed has two classes and training examples for each test class."""
    if not recordings:
        raise ValueError(f"{dataset} has no recordings in {data_dir}. {_hint(dataset, data_dir)}")
    folder = SPEECH_FOLDERS[dataset]
    for split in ("train", "test"):
        if all(r.split != split for r in recordings):
            raise ValueError(
                f"{dataset} in {data_dir} has no {split} recordings among {len(recordings)}. {_hint(dataset, data_dir)}"
            )
    for task in (task for task in folder.tasks if task not in folder.open_tasks):
        train, test = ({r.labels[task] for r in recordings if r.split == split} for split in ("train", "test"))
        if len(train) < 2:
            raise ValueError(f"{dataset} in {data_dir} has one {task}, {min(train)}; at least two are needed.")
        if extra := sorted(test - train):
            raise ValueError(
                f"{dataset} in {data_dir} has no training recordings of the {task} {first_of(extra)}, which its test split has."
            )
    return recordings
