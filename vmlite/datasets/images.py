"""Images: CIFAR-10, its JPEG pack, any folder of images, and generated Spirographs."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from vmlite.datasets.base import Options, Splits, check_count, first_of
from vmlite.datasets.synthetic import spirograph

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")


class ImageDataset:
    """Images kept as uint8 on the device. See `vmlite.datasets.Dataset` for the attributes.

    Args:
        name: as it appears in tables.
        images: (N, C, H, W), uint8, or floats in [0, 1], which are rounded to 256 levels.
        targets: task -> labels (N,).
        classes: task -> names of its classes.
        statistics: the training images' per-channel (mean, std); None computes those of `images`.

    Raises ValueError for another shape, sides under 5, values outside [0, 1], and labels that do not fit.
    """

    topic = "images"

    def __init__(
        self,
        name: str,
        images: Tensor,
        targets: dict[str, Tensor],
        classes: dict[str, tuple[str, ...]],
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if images.ndim != 4 or len(images) == 0 or min(images.shape[2:]) < 5:
            raise ValueError(
                f"images must be (N, C, H, W), N at least 1, with sides of at least 5, got {tuple(images.shape)}."
            )
        for task, labels in targets.items():
            if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= len(classes[task]):
                raise ValueError(
                    f"task {task!r} needs {len(images)} labels from 0 to {len(classes[task]) - 1}, got "
                    f"{tuple(labels.shape)} from {labels.min()} to {labels.max()}."
                )
        self.name, self.images, self.targets, self.classes = name, _as_uint8(images), targets, classes
        self.front_end: nn.Module = nn.Identity()
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        self.clamp: tuple[float, float] | None = (0.0, 1.0)
        self.mean, self.std = statistics or channel_statistics(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor, random: bool = False) -> Tensor:
        """Images (N, C, H, W) in [0, 1] for `index` (N,)."""
        return self.images[index] / 255

    inputs = batch

    def to(self, device: torch.device) -> ImageDataset:
        """See `vmlite.datasets.Dataset`."""
        targets = {task: labels.to(device) for task, labels in self.targets.items()}
        statistics = (self.mean.to(device), self.std.to(device))
        return ImageDataset(self.name, self.images.to(device), targets, self.classes, statistics)

    def first(self, n: int | None) -> ImageDataset:
        """See `vmlite.datasets.Dataset`."""
        if n is None or n == len(self):
            return self
        check_count(self, n)
        targets = {task: labels[:n] for task, labels in self.targets.items()}
        return ImageDataset(self.name, self.images[:n], targets, self.classes, (self.mean, self.std))


def load_spirograph(input_size: int | None, train_size: int | None, test_size: int | None) -> Splits:
    """Generated Spirographs with the task "class": three equal bins of m times three of b. The same ones every time."""
    made: list[ImageDataset] = []
    for n, seed in ((train_size or 8000, 1), (test_size or 2000, 2)):
        images, labels = spirograph.generate(n, input_size or 20, seed)
        statistics = (made[0].mean, made[0].std) if made else None
        made.append(ImageDataset("spirograph", images, {"class": labels}, {"class": spirograph.CLASSES}, statistics))
    return Splits(*made)


def load_cifar10(data_dir: Path, input_size: int | None) -> Splits:
    """CIFAR-10 (Krizhevsky 2009) by torchvision, downloaded into `data_dir` where it is not there yet."""
    from torchvision.datasets import CIFAR10

    if input_size not in (None, 32):
        raise ValueError(f"cifar10 has images of 32x32 and is not resized; leave input_size out, got {input_size}.")
    try:
        parts = [CIFAR10(str(data_dir), train=train, download=True) for train in (True, False)]
    except (URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"CIFAR-10 could not be downloaded ({error}). Put cifar-10-python.tar.gz from "
            f"https://www.cs.toronto.edu/~kriz/cifar.html into {data_dir} by hand and run again."
        ) from error
    return _splits(
        "cifar10",
        [(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), p.targets) for p in parts],
        parts[0].classes,
    )


def load_cifar10_jpeg(data_dir: Path, input_size: int | None) -> Splits:
    """CIFAR-10 from `cifar10-jpeg.npz`: JPEG copies of 50,000 training and 5,000 test images in one file."""
    file = data_dir if data_dir.is_file() else data_dir / "cifar10-jpeg.npz"
    if not file.exists():
        raise ValueError(f"{file} does not exist; data_dir must be the folder that holds cifar10-jpeg.npz.")
    try:
        pack = dict(np.load(file))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read ({error}); copy it again.") from error
    parts = []
    for split in ("train", "test"):
        blob, offsets = pack[f"{split}_jpeg"].tobytes(), pack[f"{split}_offsets"].tolist()
        sources = [io.BytesIO(blob[a:b]) for a, b in itertools.pairwise(offsets)]
        names = [f"{file.name}, {split} image {i}" for i in range(len(sources))]
        parts.append((decode(sources, names, input_size), pack[f"{split}_labels"].tolist()))
    return _splits("cifar10-jpeg", parts, pack["classes"].tolist())


def load_image_folder(data_dir: Path, input_size: int | None) -> Splits:
    """Images below `data_dir`, the folder names as classes: train/<class>/ and test/<class>/, or <class>/ alone.

    In the second case every fifth image of a class becomes a test image. Raises ValueError for folders that are
    missing, empty or of one class, for images that cannot be read (named), and for mixed sizes without `input_size`.
    """
    if not data_dir.is_dir():
        raise ValueError(
            f"the image folder {data_dir} does not exist; data_dir must hold train/<class>/ and test/<class>/."
        )
    split = (data_dir / "train").is_dir() and (data_dir / "test").is_dir()
    files = [_labelled_files(data_dir / part) for part in (("train", "test") if split else (".",))]
    if not split:
        files = [
            {name: [f for i, f in enumerate(paths) if (i % 5 == 4) == test] for name, paths in files[0].items()}
            for test in (False, True)
        ]
    classes = sorted(files[0])
    if len(classes) < 2:
        raise ValueError(f"{data_dir} has {len(classes)} class folder(s) with images; at least two classes are needed.")
    if extra := sorted(set(files[1]) - set(classes)):
        raise ValueError(f"the test classes {', '.join(extra)} in {data_dir} have no training images.")
    parts = []
    for labelled in files:
        paths = [(path, classes.index(name)) for name in classes for path in labelled.get(name, [])]
        if not paths:
            raise ValueError(f"{data_dir} has no test images: give each class five images or more, or a test folder.")
        names = [str(path) for path, _ in paths]
        parts.append((decode([path for path, _ in paths], names, input_size), [label for _, label in paths]))
    return _splits(f"image-folder:{data_dir.name}", parts, classes)


LOADERS: dict[str, Callable[[Path, Options], Splits]] = {
    "spirograph": lambda _, asked: load_spirograph(asked.input_size, asked.train_size, asked.test_size),
    "cifar10": lambda data_dir, asked: load_cifar10(data_dir, asked.input_size),
    "cifar10-jpeg": lambda data_dir, asked: load_cifar10_jpeg(data_dir, asked.input_size),
    "image-folder": lambda data_dir, asked: load_image_folder(data_dir, asked.input_size),
}


def decode(sources: Sequence[Path | io.BytesIO], names: Sequence[str], input_size: int | None) -> Tensor:
    """Decode images to (N, 3, H, W) uint8, the shorter side resized to `input_size` and the middle cut out if given."""

    def read(source: Path | io.BytesIO) -> np.ndarray | str:
        try:
            with Image.open(source) as image:
                if image.mode[0] in "IF":  # Pillow would clip these to white
                    return f"{image.mode}: convert it to 8 bits a channel"
                rgb = image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            return str(error)
        return np.asarray(rgb if input_size is None else _square(rgb, input_size))

    with ThreadPoolExecutor() as pool:
        made = list(tqdm(pool.map(read, sources), total=len(sources), desc="decoding", leave=False, delay=1))
    bad = [f"{name} ({result})" for name, result in zip(names, made, strict=True) if isinstance(result, str)]
    if bad:
        raise ValueError(f"{len(bad)} image(s) cannot be read: {first_of(bad)}. Replace or delete them.")
    shapes = {result.shape: name for name, result in zip(names, made, strict=True) if not isinstance(result, str)}
    if len(shapes) > 1:
        (a, name_a), (b, name_b) = list(shapes.items())[:2]
        raise ValueError(
            f"images have {len(shapes)} different sizes, such as {a[1]}x{a[0]} ({name_a}) and {b[1]}x{b[0]} ({name_b}); "
            "set input_size, for example 32, to resize them all."
        )
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of uint8 images, in units of [0, 1]."""
    counts = torch.stack([torch.bincount(c.flatten().int(), minlength=256) for c in images.transpose(0, 1)]).double()
    share = counts / counts.sum(1, keepdim=True)
    levels = torch.arange(256, device=images.device).double() / 255
    mean = share @ levels
    std = (share @ levels.square() - mean.square()).clamp_min(1e-8).sqrt()
    return mean.float(), std.float()


def _as_uint8(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    low, high = images.min().item(), images.max().item()
    if not images.is_floating_point() or not (low >= 0 and high <= 1):  # not(...) so that NaN is refused too
        raise ValueError(f"images must be uint8, or floats in [0, 1]; got {images.dtype} from {low:g} to {high:g}.")
    return (images * 255).round().to(torch.uint8)


def _labelled_files(folder: Path) -> dict[str, list[Path]]:
    found = {
        part.name: sorted(f for f in part.rglob("[!.]*") if f.suffix.lower() in SUFFIXES)
        for part in sorted(folder.glob("[!.]*"))  # not .ipynb_checkpoints
        if part.is_dir()
    }
    return {name: files for name, files in found.items() if files}


def _square(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(s * scale)) for s in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))


def _splits(name: str, parts: Sequence[tuple[Tensor, Sequence[int]]], classes: Sequence[str]) -> Splits:
    """Both splits with the statistics of the training images, in one fixed random order."""
    made: list[ImageDataset] = []
    for images, labels in parts:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        statistics = (made[0].mean, made[0].std) if made else None
        targets = {"class": torch.tensor(labels)[order]}
        made.append(ImageDataset(name, images[order], targets, {"class": tuple(classes)}, statistics))
    return Splits(*made)
