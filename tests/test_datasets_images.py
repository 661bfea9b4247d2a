"""Image data sets: folders, CIFAR-10 over the network, its JPEG pack, and what each refuses."""

import functools
import hashlib
import http.server
import io
import itertools
import pickle
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from vmlite import datasets
from vmlite.datasets import ImageDataset
from vmlite.datasets.images import channel_statistics

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CLASSES = ("ant", "bee", "cat")


def pixels(*key: int, side: tuple[int, int] = (8, 8)) -> np.ndarray:
    """An image (H, W, 3) that only these numbers make."""
    return np.random.default_rng(key).integers(0, 256, (*side, 3), dtype=np.uint8)


def save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


@pytest.fixture
def split_folder(tmp_path):
    """train/ with 3 images a class and test/ with 2, as PNG: (folder, {split: {image bytes: class number}})."""
    known = {"train": {}, "test": {}}
    for (s, (split, count)), (c, name) in itertools.product(
        enumerate({"train": 3, "test": 2}.items()), enumerate(CLASSES)
    ):
        for i in range(count):
            image = pixels(s, c, i)
            known[split][image.tobytes()] = c
            save(tmp_path / "photos" / split / name / f"{i}.png", image)
    return tmp_path / "photos", known


@pytest.fixture
def flat_folder(tmp_path):
    """<class>/ alone: seven images of each of three classes."""
    for (c, name), i in itertools.product(enumerate(CLASSES), range(7)):
        save(tmp_path / "flat" / name / f"{i}.png", pixels(c, i))
    return tmp_path / "flat"


def load(*args, **options):
    return datasets.load(*args, device="cpu", **options)


def load_folder(folder: Path, **options):
    return load("image-folder", folder, **options)


def stored(data: ImageDataset, i: int) -> bytes:
    return data.images[i].permute(1, 2, 0).contiguous().numpy().tobytes()


def as_batch(data: ImageDataset):
    return data.batch(torch.arange(len(data)))


def test_split_folder_keeps_pixels_labels_and_names(split_folder):
    folder, known = split_folder
    for split, data in zip(("train", "test"), load_folder(folder), strict=True):
        found = {stored(data, i): label for i, label in enumerate(data.targets["class"].tolist())}
        assert found == known[split]
        assert data.classes == {"class": CLASSES}
        assert (data.name, data.shape, data.clamp) == ("image-folder:photos", (3, 8, 8), (0.0, 1.0))
        assert data.images.dtype == torch.uint8


def test_flat_folder_makes_every_fifth_image_a_test_image(flat_folder):
    train, test = load_folder(flat_folder)
    images = {stored(data, i) for data in (train,) for i in range(len(data))}
    assert images == {pixels(c, i).tobytes() for c in range(3) for i in (0, 1, 2, 3, 5, 6)}
    labels = {stored(test, i): test.targets["class"][i].item() for i in range(len(test))}
    assert labels == {pixels(c, 4).tobytes(): c for c in range(3)}


def test_order_is_shuffled_and_always_the_same(flat_folder):
    once, again = load_folder(flat_folder).train, load_folder(flat_folder).train
    assert torch.equal(once.images, again.images)
    assert torch.equal(once.targets["class"], again.targets["class"])
    assert once.targets["class"].tolist() != sorted(once.targets["class"].tolist())


def test_statistics_are_those_of_the_training_images(split_folder):
    folder, known = split_folder
    train, test = load_folder(folder)
    arrays = np.stack([np.frombuffer(image, np.uint8).reshape(8, 8, 3) for image in known["train"]]) / 255
    for data in (train, test, train.first(2), train.to(torch.device("cpu"))):
        np.testing.assert_allclose(data.mean, arrays.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(data.std, arrays.std((0, 1, 2)), rtol=1e-5)


def test_statistics_of_a_constant_channel_are_finite_and_not_zero():
    images = torch.zeros(4, 2, 6, 6, dtype=torch.uint8)
    images[:, 1] = torch.arange(36).view(6, 6)
    mean, std = channel_statistics(images)
    torch.testing.assert_close(mean, torch.tensor([0.0, 17.5 / 255]))
    assert 0 < std[0] < 1e-3
    assert std[1] == pytest.approx(np.arange(36).std() / 255, rel=1e-5)


def test_batch_is_float_in_the_unit_interval_and_index_is_an_identity(split_folder):
    train = load_folder(split_folder[0]).train
    index = torch.tensor([4, 0, 4])
    batch = train.batch(index)
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, train.images[index].float() / 255, rtol=0, atol=1e-7)
    assert torch.equal(batch, train.batch(index))
    assert torch.equal(batch[0], batch[2])
    assert torch.equal(batch[1], train.batch(torch.tensor([0]))[0])
    assert not torch.equal(batch[0], batch[1])
    assert torch.equal(train.front_end(batch), batch)
    assert torch.equal(train.inputs(index, random=True), batch)


def test_floats_are_rounded_to_256_levels():
    images = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    data = ImageDataset("floats", images, {"class": torch.tensor([0, 1, 0])}, {"class": ("a", "b")})
    assert data.shape == (1, 5, 7)
    assert (data.images[0, 0, 0, 0], data.images[0, 0, 0, 1]) == (0, 255)
    assert (as_batch(data) - images).abs().max() <= 0.5 / 255 + 1e-6


def test_first_keeps_the_first_examples(split_folder):
    train = load_folder(split_folder[0]).train
    first = train.first(4)
    assert len(first) == 4
    assert torch.equal(first.images, train.images[:4])
    assert torch.equal(first.targets["class"], train.targets["class"][:4])
    assert train.first(None) is train


def test_load_cuts_both_splits(split_folder):
    train, test = load_folder(split_folder[0], train_size=5, test_size=1)
    assert (len(train), len(test)) == (5, 1)
    assert len(test.targets["class"]) == 1


def test_sizes_are_at_most_what_there_is(split_folder):
    train, test = load_folder(split_folder[0], train_size=10, test_size=7)
    assert (len(train), len(test)) == (9, 6)
    with pytest.raises(ValueError, match=r"10.*has 9"):
        train.first(10)


@pytest.mark.parametrize("n", [0, -1])
def test_no_examples_is_refused(split_folder, n):
    with pytest.raises(ValueError, match=f"{n} examples were asked of image-folder:photos"):
        load_folder(split_folder[0], train_size=n)


# Image sizes


def test_image_size_resizes_the_shorter_side_and_cuts_the_middle(tmp_path):
    """An image three times as wide as high: black, white, black thirds. The middle third is left."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    for name, array in (("wide", wide), ("high", wide.transpose(1, 0, 2))):
        for split in ("train", "test"):
            save(tmp_path / split / name / "0.png", array)
    train, _ = load_folder(tmp_path, input_size=10)
    assert train.shape == (3, 10, 10)
    assert train.images[:, :, 1:-1, 1:-1].min() == 255  # the border mixes with its black neighbours
    assert (train.images.float().mean((1, 2, 3)) > 230).all()


def test_image_size_averages_rather_than_picks_pixels(tmp_path):
    board = np.zeros((32, 32, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 200
    for name in ("a", "b"):
        for split in ("train", "test"):
            save(tmp_path / split / name / "0.png", board)
    inner = load_folder(tmp_path, input_size=8).train.images[:, :, 1:-1, 1:-1].float()
    assert (inner - 100).abs().max() < 10


def test_image_size_enlarges(split_folder):
    assert load_folder(split_folder[0], input_size=11).test.shape == (3, 11, 11)


def test_mixed_sizes_name_two_files_and_the_mend(split_folder):
    folder, _ = split_folder
    save(folder / "train" / "bee" / "odd.png", pixels(9, side=(8, 12)))
    with pytest.raises(ValueError, match=r"2 different sizes.*input_size") as raised:
        load_folder(folder)
    assert "12x8" in str(raised.value)
    assert "8x8" in str(raised.value)
    assert str(folder / "train" / "bee" / "odd.png") in str(raised.value)
    assert str(raised.value).count(".png") == 2
    assert load_folder(folder, input_size=8).train.shape == (3, 8, 8)


def test_images_under_five_pixels_are_refused(split_folder):
    with pytest.raises(ValueError, match="at least 5"):
        load_folder(split_folder[0], input_size=4)


# What is read and what is not


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    grey = Image.fromarray(np.full((6, 6), 77, np.uint8))
    for split in ("train", "test"):
        for name, image in (("grey", grey), ("palette", grey.convert("P")), ("alpha", grey.convert("RGBA"))):
            (tmp_path / split / name).mkdir(parents=True)
            image.save(tmp_path / split / name / "0.png")
    train = load_folder(tmp_path).train
    assert train.shape == (3, 6, 6)
    assert (train.images == 77).all()


def test_suffixes_in_capitals_and_subfolders_count_and_other_files_do_not(split_folder):
    folder, _ = split_folder
    save(folder / "train" / "ant" / "deeper" / "NEW.PNG", pixels(7))
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / "train" / "Thumbs.db").write_text("not a class")
    assert len(load_folder(folder).train) == 10


def test_hidden_folders_and_files_are_left_out(split_folder):
    folder, _ = split_folder
    save(folder / "train" / ".ipynb_checkpoints" / "0-checkpoint.png", pixels(7))
    (folder / "train" / "ant" / "._0.png").write_bytes(b"what macOS leaves beside a file")
    train = load_folder(folder).train
    assert train.classes["class"] == CLASSES
    assert len(train) == 9


def test_unreadable_images_are_named_and_counted(split_folder):
    folder, _ = split_folder
    (folder / "train" / "ant" / "text.png").write_text("this is not an image")
    (folder / "train" / "cat" / "empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^2 image\(s\) cannot be read") as raised:
        load_folder(folder)
    assert str(folder / "train" / "ant" / "text.png") in str(raised.value)
    assert str(folder / "train" / "cat" / "empty.jpg") in str(raised.value)


def test_truncated_jpeg_is_named(split_folder):
    folder, _ = split_folder
    buffer = io.BytesIO()
    Image.fromarray(pixels(5, side=(64, 64))).save(buffer, "JPEG")
    cut = folder / "test" / "bee" / "cut.jpg"
    cut.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ValueError, match=r"^1 image\(s\) cannot be read.*truncated") as raised:
        load_folder(folder)
    assert str(cut) in str(raised.value)


def test_many_unreadable_images_are_counted_and_three_named(split_folder):
    folder, _ = split_folder
    for i in range(5):
        (folder / "train" / "ant" / f"bad{i}.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"^5 image\(s\) cannot be read.*and 2 more") as raised:
        load_folder(folder)
    assert [f"bad{i}.png" in str(raised.value) for i in range(5)] == [True, True, True, False, False]


def test_sixteen_bit_images_are_refused_rather_than_clipped_to_white(split_folder):
    folder, _ = split_folder
    Image.fromarray(np.full((8, 8), 30000, np.uint16)).save(folder / "train" / "ant" / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png.*8 bits"):
        load_folder(folder)


# Folders that do not fit


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist.*train/<class>/"):
        load_folder(tmp_path / "nowhere")


def test_image_folder_needs_data_dir():
    with pytest.raises(ValueError, match="needs data_dir"):
        load("image-folder")


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"0 class folder\(s\).*at least two"):
        load_folder(tmp_path)


def test_one_class(tmp_path):
    for i in range(6):
        save(tmp_path / "only" / f"{i}.png", pixels(i))
    (tmp_path / "without-images").mkdir()
    with pytest.raises(ValueError, match=r"1 class folder\(s\).*at least two"):
        load_folder(tmp_path)


def test_test_class_without_training_images(split_folder):
    folder, _ = split_folder
    save(folder / "test" / "dog" / "0.png", pixels(6))
    with pytest.raises(ValueError, match=r"test classes dog .* no training images"):
        load_folder(folder)


def test_training_class_without_test_images_is_fine(split_folder):
    folder, _ = split_folder
    save(folder / "train" / "dog" / "0.png", pixels(6))
    train, test = load_folder(folder)
    assert train.classes == test.classes == {"class": (*CLASSES, "dog")}
    assert set(test.targets["class"].tolist()) == {0, 1, 2}


def test_too_few_images_for_a_test_split(tmp_path):
    for c, name in enumerate(("a", "b")):
        for i in range(4):
            save(tmp_path / name / f"{i}.png", pixels(c, i))
    with pytest.raises(ValueError, match=r"no test images.*five images"):
        load_folder(tmp_path)


def test_unknown_data_set():
    with pytest.raises(ValueError, match=r"unknown dataset 'cifar'; choose from .*cifar10.*image-folder"):
        load("cifar")


# Arrays that do not fit


def refused(images, labels=(0, 1), **options):
    ImageDataset("bad", images, {"class": torch.tensor(labels)}, {"class": ("a", "b")}, **options)


@pytest.mark.parametrize(
    "shape", [(2, 3, 8), (2, 3, 4, 8), (2, 3, 8, 4), (0, 3, 8, 8)], ids=["three axes", "low", "narrow", "none"]
)
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"N, C, H, W.*sides of at least 5"):
        refused(torch.zeros(shape))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, float("nan"), float("inf")])
def test_floats_outside_the_unit_interval(value):
    images = torch.full((2, 3, 6, 6), 0.5)
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        refused(images)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.int8])
def test_other_types_of_numbers(dtype):
    with pytest.raises(ValueError, match=r"must be uint8.*torch.int"):
        refused(torch.zeros(2, 3, 6, 6, dtype=dtype))


@pytest.mark.parametrize("labels", [(0, 2), (-1, 0), (0,), (0, 1, 1)])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="task 'class' needs 2 labels from 0 to 1"):
        refused(torch.zeros(2, 3, 6, 6), labels)


# Spirographs through the same door


def test_spirograph_sizes_and_statistics():
    train, test = load("spirograph", input_size=9, train_size=20, test_size=12)
    assert (len(train), len(test), train.shape) == (20, 12, (3, 9, 9))
    assert torch.equal(train.mean, test.mean)
    mean = train.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(train.mean.double(), mean, rtol=1e-5, atol=0)


# CIFAR-10 over the network


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def tiny_cifar(monkeypatch):
    """A CIFAR-10 archive of 20 images a batch in the layout of the real one: (archive, {batch name: its dict})."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batches = {}
    for b, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rng = np.random.default_rng(b)
        batches[name] = {
            "data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": rng.integers(0, 10, 20).tolist(),
            "batch_label": name,
            "filenames": [f"{i}.png" for i in range(20)],
        }
    meta = {"label_names": names, "num_cases_per_batch": 20, "num_vis": 3072}
    files = {name: pickle.dumps(content, protocol=2) for name, content in (batches | {"batches.meta": meta}).items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5(files[n])] for n in files if n.startswith("data")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return buffer.getvalue(), batches


@pytest.fixture
def server(tmp_path):
    """A web server on this machine alone: (its address, the folder that it serves, the paths asked of it)."""
    asked, folder = [], tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}", folder, asked
        served.shutdown()
        thread.join()


@pytest.fixture
def closed_url():
    """An address where nobody listens: a port bound here, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/cifar-10-python.tar.gz"


def check_tiny_cifar(data_dir, batches):
    train, test = load("cifar10", data_dir)
    for data, names in ((train, [f"data_batch_{i}" for i in range(1, 6)]), (test, ["test_batch"])):
        rows = np.concatenate([batches[name]["data"] for name in names])
        labels = [label for name in names for label in batches[name]["labels"]]
        images = data.images.flatten(1).numpy()
        assert len(images) == len(rows)
        found = {image.tobytes(): label for image, label in zip(images, data.targets["class"].tolist(), strict=True)}
        assert found == {row.tobytes(): label for row, label in zip(rows, labels, strict=True)}
        assert data.classes["class"][3] == "cat"
        assert (data.name, data.shape) == ("cifar10", (3, 32, 32))


def test_cifar10_is_downloaded_once(tiny_cifar, server, tmp_path, monkeypatch):
    archive, batches = tiny_cifar
    url, served, asked = server
    (served / "cifar.tar.gz").write_bytes(archive)
    monkeypatch.setattr(CIFAR10, "url", f"{url}/cifar.tar.gz")
    (tmp_path / "data").mkdir()
    check_tiny_cifar(tmp_path / "data", batches)
    assert "/cifar.tar.gz" in asked
    asked.clear()
    check_tiny_cifar(tmp_path / "data", batches)
    assert asked == []


def test_cifar10_put_there_by_hand_needs_no_network(tiny_cifar, closed_url, tmp_path, monkeypatch):
    archive, batches = tiny_cifar
    monkeypatch.setattr(CIFAR10, "url", closed_url)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    check_tiny_cifar(tmp_path, batches)


def test_cifar10_without_network_says_where_to_put_the_file(tiny_cifar, closed_url, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", closed_url)
    with pytest.raises(ValueError, match=r"could not be downloaded .*cifar-10-python\.tar\.gz.*by hand") as raised:
        load("cifar10", tmp_path)
    assert f"into {tmp_path} by hand" in str(raised.value)


@pytest.mark.parametrize("dataset", ["cifar10", "pamap2", "pamap2-11"])
def test_nothing_is_downloaded_into_a_folder_that_is_not_there(tmp_path, dataset):
    with pytest.raises(ValueError, match=f"there is no folder .*typo; make it if {dataset} is to be downloaded there"):
        load(dataset, tmp_path / "typo")
    assert not list(tmp_path.iterdir())


def test_damaged_cifar10_download_is_refused(tiny_cifar, server, tmp_path, monkeypatch):
    archive, _ = tiny_cifar
    url, served, _ = server
    (served / "cifar.tar.gz").write_bytes(archive[:-100])
    monkeypatch.setattr(CIFAR10, "url", f"{url}/cifar.tar.gz")
    with pytest.raises(ValueError, match=r"corrupted.*by hand"):
        load("cifar10", tmp_path)


def test_cifar10_in_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"32x32.*input_size.*got 16"):
        load("cifar10", tmp_path, input_size=16)


# CIFAR-10 as JPEG in one file


@pytest.fixture
def tiny_pack(tmp_path):
    """A pack of 12 + 6 images of two plain colours in the layout of the real one: (folder, {split: labels})."""
    content, labels = {"classes": np.array(["red", "green"])}, {}
    for split, count in (("train", 12), ("test", 6)):
        labels[split] = [i % 2 if i else 1 for i in range(count)]
        blobs = []
        for i, label in enumerate(labels[split]):
            image = np.zeros((32, 32, 3), np.uint8)
            image[:, :, label] = 120 + 10 * i
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=95)
            blobs.append(buffer.getvalue())
        content[f"{split}_jpeg"] = np.frombuffer(b"".join(blobs), np.uint8)
        content[f"{split}_offsets"] = np.cumsum([0, *map(len, blobs)])
        content[f"{split}_labels"] = np.array(labels[split], np.uint8)
    np.savez(tmp_path / "cifar10-jpeg.npz", **content)
    return tmp_path, labels


@pytest.mark.parametrize("name", [".", "cifar10-jpeg.npz"], ids=["folder", "file"])
def test_jpeg_pack(tiny_pack, name):
    folder, labels = tiny_pack
    for split, data in zip(("train", "test"), load("cifar10-jpeg", folder / name), strict=True):
        assert (data.name, data.shape, data.classes) == ("cifar10-jpeg", (3, 32, 32), {"class": ("red", "green")})
        assert data.targets["class"].dtype == torch.int64
        colour = as_batch(data).mean((2, 3))
        assert torch.equal(colour.argmax(1), data.targets["class"])
        levels = (colour.amax(1) * 255).sort().values
        torch.testing.assert_close(levels, 120 + 10.0 * torch.arange(len(labels[split])), rtol=0, atol=3)


def test_jpeg_pack_in_another_size(tiny_pack):
    data = load("cifar10-jpeg", tiny_pack[0], input_size=16).test
    assert data.shape == (3, 16, 16)
    assert torch.equal(as_batch(data).mean((2, 3)).argmax(1), data.targets["class"])


def test_jpeg_pack_with_a_damaged_image_names_it(tiny_pack):
    folder, _ = tiny_pack
    content = dict(np.load(folder / "cifar10-jpeg.npz"))
    content["test_jpeg"] = content["test_jpeg"].copy()
    content["test_jpeg"][content["test_offsets"][2] :][:4] = 0
    np.savez(folder / "cifar10-jpeg.npz", **content)
    with pytest.raises(ValueError, match=r"^1 image\(s\) cannot be read: cifar10-jpeg.npz, test image 2 "):
        load("cifar10-jpeg", folder)


def test_missing_jpeg_pack(tmp_path):
    with pytest.raises(ValueError, match=r"cifar10-jpeg\.npz does not exist; data_dir must be the folder"):
        load("cifar10-jpeg", tmp_path)


@pytest.mark.skipif(not (SHARED / "cifar10-jpeg.npz").exists(), reason="needs ../shared/data/cifar10-jpeg.npz")
def test_part_of_the_real_jpeg_pack(tmp_path):
    """One image in a hundred of each split: the same pixels as a plain decoding, and CIFAR-10's known statistics."""
    with np.load(SHARED / "cifar10-jpeg.npz") as pack:
        assert (len(pack["train_labels"]), len(pack["test_labels"])) == (50000, 5000)
        content = {"classes": pack["classes"]}
        for split in ("train", "test"):
            blob, offsets = pack[f"{split}_jpeg"], pack[f"{split}_offsets"]
            images = [blob[offsets[i] : offsets[i + 1]] for i in range(0, len(offsets) - 1, 100)]
            content[f"{split}_jpeg"] = np.concatenate(images)
            content[f"{split}_offsets"] = np.cumsum([0, *map(len, images)])
            content[f"{split}_labels"] = pack[f"{split}_labels"][::100]
    np.savez(tmp_path / "cifar10-jpeg.npz", **content)
    train, test = load("cifar10-jpeg", tmp_path)
    assert (len(train), len(test), train.shape) == (500, 50, (3, 32, 32))
    assert train.classes["class"][:3] == ("airplane", "automobile", "bird")
    assert train.targets["class"].bincount().tolist() == [50] * 10
    known = {}
    for image_bytes, label in zip(images, content["test_labels"], strict=True):
        with Image.open(io.BytesIO(image_bytes.tobytes())) as image:
            known[np.asarray(image.convert("RGB")).tobytes()] = label
    assert {stored(test, i): label for i, label in enumerate(test.targets["class"].tolist())} == known
    assert ((train.mean - torch.tensor([0.491, 0.482, 0.446])).abs() < 0.06).all()
    assert ((train.std - torch.tensor([0.247, 0.243, 0.261])).abs() < 0.04).all()
