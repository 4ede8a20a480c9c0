"""Data sets: what is loaded, what is refused, and the order of batches. Nothing here needs the network."""

from __future__ import annotations

import gzip
import http.client
import io
import os
import pickle
import re
import shutil
import socket
import ssl
import tarfile
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import md5

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from dnabook import data, records
from dnabook.data import (
    CIFAR10_CLASSES,
    Batches,
    DataError,
    DownloadError,
    Images,
    crop_and_flip,
    load,
    load_or_stand_in,
)

# --- MNIST ---------------------------------------------------------------------------------------


def test_mnist_has_its_shapes_types_and_range(whole_mnist_train, whole_mnist_test):
    for images, n in ((whole_mnist_train, 60_000), (whole_mnist_test, 10_000)):
        assert len(images) == n
        assert images.x.shape == (n, 1, 28, 28) and images.x.dtype == torch.float32
        assert images.y.shape == (n,) and images.y.dtype == torch.int64
        assert images.x.min() == 0 and images.x.max() == 1
        assert images.name == "mnist"
    assert (whole_mnist_train.split, whole_mnist_test.split) == ("train", "test")


def test_mnist_test_labels_have_the_known_histogram(whole_mnist_train, whole_mnist_test):
    assert whole_mnist_test.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert whole_mnist_train.y.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip


def test_mnist_pixels_are_bytes_over_255_with_the_known_mean(whole_mnist_train):
    levels = whole_mnist_train.x[:500] * 255
    torch.testing.assert_close(levels, levels.round())
    assert float(whole_mnist_train.x.mean()) == pytest.approx(
        0.1307, abs=5e-5
    )  # as the whole field normalises


def test_the_labels_belong_to_the_images(trained_cnn, whole_mnist_test):
    later = whole_mnist_test[5000:5500]
    assert (trained_cnn(later.x).argmax(1) == later.y).float().mean() > 0.85


def test_a_limit_keeps_the_first_images_and_the_digest(whole_mnist_test):
    few = load("mnist", "test", limit=7, device="cpu")
    assert torch.equal(few.x, whole_mnist_test.x[:7]) and torch.equal(few.y, whole_mnist_test.y[:7])
    assert few.digest == whole_mnist_test.digest
    assert len(load("mnist", "test", limit=99_999, device="cpu")) == 10_000


def test_digests_differ_between_splits(whole_mnist_train, whole_mnist_test):
    assert whole_mnist_train.digest != whole_mnist_test.digest
    for images in (whole_mnist_train, whole_mnist_test):
        assert len(images.digest) == 12 and int(images.digest, 16) >= 0


def test_images_go_to_the_default_device_unless_told():
    assert load("mnist", "test", limit=1).x.device.type == data.default_device().type
    assert load("mnist", "test", limit=1, device="cpu").y.device.type == "cpu"


def test_images_are_restricted_by_slices_indices_and_masks(mnist_test):
    for index in (slice(2, 5), torch.tensor([9, 0, 9]), mnist_test.y == 3):
        part = mnist_test[index]
        assert torch.equal(part.x, mnist_test.x[index]) and torch.equal(part.y, mnist_test.y[index])
        assert (part.name, part.split, part.digest) == ("mnist", "test", mnist_test.digest)
    assert len(mnist_test[mnist_test.y == 3]) == int((mnist_test.y == 3).sum())


@pytest.mark.parametrize("options", [{"name": "imagenet"}, {"split": "valid"}, {"limit": 0}, {"limit": -1}])
def test_unknown_names_splits_and_limits_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        load(**options)


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A copy of the packaged test set, to be damaged."""
    for file in data.ASSETS.glob("t10k-*.gz"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    return tmp_path


FILES = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def refused(file):
    """Loading fails and the message names the file and the way out."""
    with pytest.raises(DataError, match=f"{file}.*reinstall dnabook"):
        load("mnist", "test", limit=1, device="cpu")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_mnist_file_is_named(assets, name):
    (assets / f"{name}.gz").unlink()
    refused(f"{name}.gz is missing")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 5, 0.5, -1], ids=lambda kept: f"kept {kept}")
def test_a_truncated_mnist_file_is_named(assets, name, kept):
    file = assets / f"{name}.gz"
    raw = file.read_bytes()
    file.write_bytes(raw[: int(kept * len(raw)) if isinstance(kept, float) else kept])
    refused(file.name)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_mnist_file_is_named(assets, name):
    file = assets / f"{name}.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    raw[-1] ^= 1
    file.write_bytes(gzip.compress(raw, 1))
    refused(f"{name}.gz has SHA-256")


@pytest.mark.parametrize("name", FILES)
def test_a_mnist_file_damaged_in_the_middle_is_named(assets, name):
    file = assets / f"{name}.gz"
    raw = bytearray(file.read_bytes())
    for i in range(len(raw) // 2, len(raw) // 2 + 40):
        raw[i] ^= 0xFF
    file.write_bytes(raw)
    refused(file.name)


def test_a_data_set_that_was_altered_has_another_digest(assets, monkeypatch, mnist_test):
    file = assets / "t10k-labels-idx1-ubyte.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    raw[-1] ^= 1
    file.write_bytes(gzip.compress(raw, 1))
    monkeypatch.setitem(data.MNIST_SHA256, "t10k-labels-idx1-ubyte", data.hashlib.sha256(raw).hexdigest())
    assert load("mnist", "test", limit=1, device="cpu").digest != mnist_test.digest


# --- Color-MNIST ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured():
    return load("color-mnist", "test", limit=100, device="cpu")


def test_color_mnist_has_the_shape_of_cifar10(coloured, mnist_test):
    assert coloured.x.shape == (100, 3, 32, 32) and coloured.x.dtype == torch.float32
    assert coloured.x.min() >= 0 and coloured.x.max() <= 1
    assert torch.equal(coloured.y, mnist_test.y[:100])
    assert coloured.name == "color-mnist"


def test_color_mnist_repeats_and_a_limit_keeps_its_first_images(coloured):
    assert torch.equal(load("color-mnist", "test", limit=100, device="cpu").x, coloured.x)
    assert torch.equal(load("color-mnist", "test", limit=30, device="cpu").x, coloured.x[:30])


def test_color_mnist_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    load("color-mnist", "test", limit=3, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ink_is_brighter_than_the_ground_and_the_digit_can_be_recovered(coloured, mnist_test):
    grey = torch.nn.functional.pad(mnist_test.x[:100], (2, 2, 2, 2))
    ground = coloured.x[:, :, :1, :1]  # a corner pixel: (N, 3, 1, 1)
    assert (ground <= 0.4).all()
    full = (grey == 1).expand_as(coloured.x)
    assert (coloured.x[full] >= 0.5).all()
    ink = (coloured.x * (grey == 1)).amax((2, 3), keepdim=True)
    inked = (grey == 1).flatten(1).any(1)
    recovered = (coloured.x - ground) / (ink - ground)
    torch.testing.assert_close(recovered[inked], grey.expand_as(recovered)[inked], atol=1e-5, rtol=0)


def test_colours_differ_between_images_channels_and_splits(coloured):
    ground = coloured.x[:, :, 0, 0]
    assert len(ground.flatten().unique()) > 290
    train = load("color-mnist", "train", limit=100, device="cpu")
    assert not torch.equal(train.x[:, :, 0, 0], ground)
    assert train.digest != coloured.digest


def test_the_digest_of_color_mnist_is_not_that_of_mnist(coloured, mnist_test, whole_mnist_train):
    assert (mnist_test.digest, whole_mnist_train.digest) == ("c3f9adf9c66e", "edc0d1098aa4")  # as recorded
    assert coloured.digest != mnist_test.digest


# --- CIFAR-10 as torchvision stores it -----------------------------------------------------------


@pytest.fixture
def no_download(monkeypatch):
    """The network is away, and every attempt to use it is counted."""
    attempts = []

    def download(*args, **kwargs):
        attempts.append(args)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    return attempts


@pytest.fixture
def batches_folder(tmp_path, monkeypatch, no_download):
    """A tiny cifar-10-batches-py/ whose checksums torchvision is made to expect."""
    from torchvision.datasets import CIFAR10

    rows = np.random.default_rng(0).integers(0, 256, (12, 3072), np.uint8)
    labels = [i % 10 for i in range(12)]
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name, content):
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return [name, md5(raw).hexdigest()]

    train = [
        write(f"data_batch_{i}", {"data": rows[5 * i : 5 * i + 5], "labels": labels[5 * i : 5 * i + 5]})
        for i in (0, 1)
    ]
    test = [write("test_batch", {"data": rows[10:], "labels": labels[10:]})]
    name, digest = write("batches.meta", {"label_names": list(CIFAR10_CLASSES)})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", test)
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    monkeypatch.setenv("DNABOOK_DATA", str(tmp_path))
    return folder, torch.tensor(rows), torch.tensor(labels)


def test_cifar10_rows_become_red_green_and_blue_planes(batches_folder):
    _, rows, labels = batches_folder
    train, test = (load("cifar10", split, device="cpu") for split in ("train", "test"))
    for images, part in ((train, slice(0, 10)), (test, slice(10, 12))):
        torch.testing.assert_close(images.x, rows[part].reshape(-1, 3, 32, 32).float() / 255)
        assert torch.equal(images.y, labels[part])
        assert images.name == "cifar10" and images.x.dtype == torch.float32
    assert train.digest != test.digest


@pytest.mark.parametrize("name", ["data_batch_0", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["alter", "truncate", "remove"])
def test_a_damaged_cifar10_file_is_refused_without_a_download(batches_folder, no_download, name, damage):
    file = batches_folder[0] / name
    raw = file.read_bytes()
    file.unlink()
    if damage != "remove":
        file.write_bytes(raw[:-3] if damage == "truncate" else raw[:-9] + b"X" + raw[-8:])
    with pytest.raises(DataError, match=r"missing or damaged.*DNABOOK_DATA"):
        load("cifar10", "test", device="cpu")
    assert not no_download


def test_an_empty_cifar10_folder_is_refused_without_a_download(tmp_path, monkeypatch, no_download):
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setenv("DNABOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        load("cifar10", "train")
    assert not no_download


def test_cifar10_offline_says_how_to_get_it(no_download):
    with pytest.raises(DataError, match=r"no network.*DNABOOK_DATA"):
        load("cifar10", "test")
    assert len(no_download) == 1


def test_downloads_are_kept_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("DNABOOK_CACHE", str(tmp_path / "own"))
    assert data.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("DNABOOK_CACHE")
    assert data.cache_folder() == tmp_path / "xdg" / "dnabook"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.cache_folder() == tmp_path / ".cache" / "dnabook"


def test_a_data_folder_that_does_not_exist_is_named(tmp_path, monkeypatch, no_download):
    monkeypatch.setenv("DNABOOK_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere, which does not exist"):
        load("cifar10", "test")
    assert not no_download


# --- A stand-in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_cifar10_that_cannot_be_downloaded_is_stood_in_for_by_color_mnist(split, no_download):
    found = load_or_stand_in("cifar10", split, limit=30, device="cpu")
    expected = load("color-mnist", split, limit=30, device="cpu")
    assert torch.equal(found.x, expected.x) and torch.equal(found.y, expected.y)
    assert (found.name, found.split, found.digest) == ("color-mnist", split, expected.digest)
    assert len(no_download) == 1


def test_a_failed_download_is_told_apart_from_other_data_errors(no_download):
    assert issubclass(DownloadError, DataError)
    with pytest.raises(DownloadError, match="no network"):
        load("cifar10", "test", device="cpu")


def test_a_cifar10_that_is_here_is_not_stood_in_for(batches_folder, no_download):
    found, expected = load_or_stand_in("cifar10", "test", device="cpu"), load("cifar10", "test", device="cpu")
    assert found.name == "cifar10" and torch.equal(found.x, expected.x)
    assert not no_download


@pytest.mark.parametrize("damage", ["damaged file", "empty folder", "no folder", "not a tar"])
def test_a_damaged_cifar10_is_not_stood_in_for(damage, tmp_path, monkeypatch, request):
    if damage == "damaged file":
        file = request.getfixturevalue("batches_folder")[0] / "test_batch"
        file.write_bytes(file.read_bytes()[:-3])
    else:
        path = tmp_path / "elsewhere"
        if damage == "empty folder":
            (path / "cifar-10-batches-py").mkdir(parents=True)
        elif damage == "not a tar":
            path.write_text("not a tar")
        monkeypatch.setenv("DNABOOK_DATA", str(path))
    with pytest.raises(DataError) as caught:
        load_or_stand_in("cifar10", "test", device="cpu")
    assert not isinstance(caught.value, DownloadError)


@pytest.fixture
def download(monkeypatch, tmp_path):
    """Call it with what is to be done in the place of a download into an empty cache folder."""
    monkeypatch.setenv("DNABOOK_CACHE", str(tmp_path / "cache"))
    return partial(monkeypatch.setattr, "torchvision.datasets.cifar.download_and_extract_archive")


@pytest.mark.parametrize(
    "error, failed",
    [
        (urllib.error.URLError("no network"), True),
        (urllib.error.HTTPError("https://…", 503, "unavailable", {}, None), True),
        (TimeoutError("too slow"), True),
        (ConnectionResetError("reset"), True),
        (http.client.IncompleteRead(b""), True),
        (ssl.SSLEOFError("broken off"), True),
        (RuntimeError("File not found or corrupted."), False),
        (OSError(28, "No space left on device"), False),
        (PermissionError(13, "Permission denied"), False),
        (tarfile.ReadError("not a tar"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_download_that_fails_is_stood_in_for_not_whatever_goes_wrong_with_it(download, error, failed):
    def fail(*args, **kwargs):
        raise error

    download(fail)
    with pytest.raises(DataError, match="set DNABOOK_DATA") as caught:
        load("cifar10", "test", device="cpu")
    assert isinstance(caught.value, DownloadError) == failed and caught.value.__cause__ is error
    if failed:
        assert load_or_stand_in("cifar10", "test", limit=3, device="cpu").name == "color-mnist"


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar"
        monkeypatch.setattr("torchvision.datasets.cifar.CIFAR10.url", url)
        monkeypatch.setattr(data, "PATIENCE", 0.2)
        with pytest.raises(DownloadError, match="timed out"):
            load("cifar10", "test", device="cpu")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("variable", ["DNABOOK_CACHE", "DNABOOK_RESULTS"])
def test_a_tilde_is_the_users_home(variable, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(variable, "~/here")
    found = data.cache_folder() if variable == "DNABOOK_CACHE" else records.folder()
    assert found == tmp_path / "here"


def test_a_damaged_cifar10_in_the_cache_is_not_stood_in_for_without_a_network(
    no_download, download, tmp_path
):
    (tmp_path / "cache" / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(DataError, match=r"damaged.*no network") as caught:
        load_or_stand_in("cifar10", "test", device="cpu")
    assert not isinstance(caught.value, DownloadError) and len(no_download) == 1


def test_one_download_at_a_time_writes_into_the_cache(download):
    busy, most = [], []

    def slowly(*args, **kwargs):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.1)
        busy.pop()
        raise urllib.error.URLError("no network")

    download(slowly)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(load, "cifar10", "test", device="cpu") for _ in range(4)]
    assert all(isinstance(each.exception(), DownloadError) for each in found)
    assert most == [1] * 4


def test_only_a_download_error_is_stood_in_for(monkeypatch):
    def broken(split):
        raise error

    monkeypatch.setattr(data, "_cifar10", broken)
    for error in (DataError("damaged"), OSError("disk"), MemoryError()):
        with pytest.raises(type(error)):
            load_or_stand_in("cifar10", "test", device="cpu")
    error = DownloadError("away")
    assert load_or_stand_in("cifar10", "test", limit=3, device="cpu").name == "color-mnist"


@pytest.mark.parametrize("name", ["mnist", "color-mnist"])
def test_what_travels_with_the_package_is_loaded_as_it_is(name):
    found, expected = (f(name, "test", limit=5, device="cpu") for f in (load_or_stand_in, load))
    assert found.name == name and torch.equal(found.x, expected.x)
    with pytest.raises(ValueError, match="unknown data set"):
        load_or_stand_in("imagenet")


# --- CIFAR-10 as JPEG files ----------------------------------------------------------------------


def jpeg(shade, size=(32, 32)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade // 2, 0)).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


SHADES = {name: 20 * i for i, name in enumerate(CIFAR10_CLASSES)}  # red tells the class, green is half of it


@pytest.fixture(scope="module")
def jpeg_folder(tmp_path_factory):
    """The whole test split as a folder: ten JPEGs, each linked a thousand times."""
    root = tmp_path_factory.mktemp("jpeg")
    for name, shade in SHADES.items():
        folder = root / "test" / name
        folder.mkdir(parents=True)
        (folder / "0000.jpg").write_bytes(jpeg(shade))
        for i in range(1, 1000):
            os.link(folder / "0000.jpg", folder / f"{i:04}.jpg")
    return root


@pytest.fixture(scope="module")
def jpeg_tar(jpeg_folder):
    """The same files in a tar, in another order and below a folder of their own."""
    file = jpeg_folder.parent / "jpeg.tar"
    with tarfile.open(file, "w") as tar:
        for name, shade in reversed(SHADES.items()):
            raw = jpeg(shade)
            for i in reversed(range(1000)):
                member = tarfile.TarInfo(f"./cifar/test/{name}/{i:04}.jpg")
                member.size = len(raw)
                tar.addfile(member, io.BytesIO(raw))
    return file


@pytest.fixture(scope="module")
def from_folder(jpeg_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNABOOK_DATA", str(jpeg_folder))
        return load("cifar10", "test", device="cpu")


def test_a_folder_of_jpegs_gives_every_image_with_the_class_of_its_folder(from_folder):
    images = from_folder
    assert images.x.shape == (10_000, 3, 32, 32)
    assert images.y.bincount().tolist() == [1000] * 10
    assert "JPEG" in images.name  # the caveat travels with the data
    expected = torch.stack([20.0 * images.y, 10.0 * images.y, 0.0 * images.y], 1) / 255
    assert (images.x - expected[:, :, None, None]).abs().max() < 3 / 255


def test_the_first_jpegs_are_of_all_classes(from_folder):
    assert (from_folder.y[:1000].bincount(minlength=10) > 50).all()


def test_a_tar_of_jpegs_gives_the_same_images_as_a_folder(jpeg_tar, from_folder, monkeypatch):
    monkeypatch.setenv("DNABOOK_DATA", str(jpeg_tar))
    images = load("cifar10", "test", device="cpu")
    assert torch.equal(images.x, from_folder.x) and torch.equal(images.y, from_folder.y)
    assert images.digest == from_folder.digest


@pytest.mark.parametrize("split, each", [("train", 5000), ("test", 1000)])
@pytest.mark.parametrize("as_tar", [False, True], ids=["folder", "tar"])
def test_a_wrong_number_of_jpegs_names_the_folder_and_both_numbers(
    tmp_path, monkeypatch, split, each, as_tar
):
    root = tmp_path / "images"
    for name in CIFAR10_CLASSES:
        (root / split / name).mkdir(parents=True)
        (root / split / name / "1.jpg").write_bytes(jpeg(0))
    if as_tar:
        with tarfile.open(tmp_path / "images.tar", "w") as tar:
            tar.add(root, "images")
        root = tmp_path / "images.tar"
    monkeypatch.setenv("DNABOOK_DATA", str(root))
    with pytest.raises(DataError, match=f"holds 1 images in {split}/airplane/, expected {each}"):
        load("cifar10", split)


def test_a_missing_class_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DNABOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match="0 images in test/airplane/, expected 1000"):
        load("cifar10", "test")


def test_an_unknown_class_folder_is_named(jpeg_folder, monkeypatch):
    extra = jpeg_folder / "test" / "zebra"
    extra.mkdir()
    (extra / "1.jpg").write_bytes(jpeg(0))
    monkeypatch.setenv("DNABOOK_DATA", str(jpeg_folder))
    try:
        with pytest.raises(DataError, match="zebra"):
            load("cifar10", "test")
    finally:
        shutil.rmtree(extra)


@pytest.mark.parametrize(
    "raw, message",
    [
        (jpeg(0)[:-200], "damaged"),
        (b"", "damaged"),
        (b"not an image", "damaged"),
        (jpeg(0, (16, 32)), r"expected \(32, 32, 3\)"),
    ],
    ids=["truncated", "empty", "text", "small"],
)
def test_a_damaged_jpeg_is_named(jpeg_folder, monkeypatch, raw, message):
    first = jpeg_folder / "test" / "airplane" / "0000.jpg"
    first.rename(first.with_suffix(".kept"))
    first.write_bytes(raw)
    monkeypatch.setenv("DNABOOK_DATA", str(jpeg_folder))
    try:
        with pytest.raises(DataError, match=f"test/airplane/0000.jpg.*{message}"):
            load("cifar10", "test")
    finally:
        first.with_suffix(".kept").replace(first)


@pytest.fixture
def small_tar(tmp_path, monkeypatch):
    """The bytes of a small tar, plain or compressed, and the file that DNABOOK_DATA names."""
    monkeypatch.setenv("DNABOOK_DATA", str(tmp_path / "images.tar"))

    def write(mode):
        with tarfile.open(tmp_path / "images.tar", f"w:{mode}") as tar:
            for i in range(20):
                raw = np.random.default_rng(i).bytes(3000)  # does not compress
                member = tarfile.TarInfo(f"test/airplane/{i}.jpg")
                member.size = len(raw)
                tar.addfile(member, io.BytesIO(raw))
        return tmp_path / "images.tar"

    return write


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"], ids=["tar", "gz", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["truncate", "alter", "text", "empty"])
def test_a_damaged_tar_is_refused(small_tar, mode, damage):
    file = small_tar(mode)
    raw = bytearray(file.read_bytes())
    half = len(raw) // 2
    file.write_bytes({
        "truncate": raw[:half],
        "alter": raw[:half] + bytes(byte ^ 0xFF for byte in raw[half : half + 3000]) + raw[half + 3000 :],
        "text": b"this is not a tar",
        "empty": b"",
    }[damage])  # fmt: skip
    with pytest.raises(DataError, match=r"images\.tar"):
        load("cifar10", "test")


# --- Batches -------------------------------------------------------------------------------------


def numbered(n):
    """n images, each holding nothing but its own number."""
    return Images(torch.arange(n).float().reshape(n, 1, 1, 1), torch.arange(n), "numbered", "train", "0" * 12)


def test_images_of_ones_own_need_no_name():
    images = Images(torch.rand(6, 1, 2, 2), torch.arange(6))
    assert (images.name, images.split, images.digest) == ("own", "", "")
    for part in (images[:3], images[torch.tensor([0, 2])], images[images.y > 2], images.shuffled(0)):
        assert len(part.x) == len(part.y) == len(part) and part.name == "own"


@pytest.mark.parametrize(
    "labels", [torch.arange(5), torch.arange(7), torch.arange(6)[:, None], torch.tensor(6)]
)
def test_images_need_a_label_each(labels):
    shape = re.escape(str(tuple(labels.shape)))
    with pytest.raises(ValueError, match=rf"need labels \(N,\), got \(6, 1, 2, 2\) and {shape}"):
        Images(torch.rand(6, 1, 2, 2), labels)


def order(batches):
    return [y.tolist() for _, y in batches]


@given(n=st.integers(1, 60), share=st.floats(0.01, 1), seed=st.integers(0, 100))
def test_an_epoch_shows_every_image_at_most_once_in_full_batches(n, share, seed):
    size = max(1, int(share * n))
    batches = Batches(numbered(n), size, seed=seed)
    epoch = order(batches)
    assert len(epoch) == len(batches) == n // size
    assert all(len(batch) == size for batch in epoch)
    seen = [i for batch in epoch for i in batch]
    assert len(set(seen)) == len(seen) == n - n % size
    assert set(seen) <= set(range(n))


def test_images_and_labels_stay_together():
    for x, y in Batches(numbered(20), 6):
        assert x.shape == (6, 1, 1, 1)
        assert torch.equal(x.flatten().long(), y)


def test_two_epochs_differ_and_the_last_images_are_not_always_dropped():
    batches = Batches(numbered(25), 10)
    epochs = [order(batches) for _ in range(10)]
    assert epochs[0] != epochs[1]
    assert {i for epoch in epochs for batch in epoch for i in batch} == set(range(25))


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    first, same, other = (Batches(numbered(30), 10, seed=seed) for seed in (1, 1, 2))
    torch.rand(5)  # the global random state has no say
    assert [order(first) for _ in range(3)] == [order(same) for _ in range(3)]
    assert order(Batches(numbered(30), 10, seed=1)) != order(other)


def test_a_default_device_set_elsewhere_changes_neither_the_order_nor_the_colours(coloured):
    images = numbered(30)
    expected = order(Batches(images, 10))
    mixed = images.shuffled(1).y
    with torch.device("meta"):  # stands for any device other than the images'
        assert order(Batches(images, 10)) == expected
        assert torch.equal(images.shuffled(1).y, mixed)
        assert torch.equal(load("color-mnist", "test", limit=30, device="cpu").x, coloured.x[:30])


def test_restoring_the_state_of_the_generator_resumes_the_order():
    batches = Batches(numbered(30), 10)
    order(batches)
    state = batches.generator.get_state()
    expected = [order(batches) for _ in range(2)]
    resumed = Batches(numbered(30), 10, seed=99)
    resumed.generator.set_state(state)
    assert [order(resumed) for _ in range(2)] == expected


@pytest.mark.parametrize("size", [0, -1, 11])
def test_batch_sizes_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match=f"1..10, got {size}"):
        Batches(numbered(10), size)


# --- Augmentation --------------------------------------------------------------------------------


def crop_and_flip_by_hand(x, generator, padding=4):
    """Image by image: pad with black, cut out at the drawn place, then mirror half of them."""
    n, channels, height, width = x.shape
    shifts = torch.randint(-padding, padding + 1, (n, 2), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    out = []
    for image, (dy, dx), mirror in zip(x, shifts.tolist(), mirrored.tolist(), strict=True):
        padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding)
        padded[:, padding : padding + height, padding : padding + width] = image
        top, left = padding + dy, padding + dx
        cut = padded[:, top : top + height, left : left + width]
        out.append(cut.flip(2) if mirror else cut)
    return torch.stack(out)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 5), seed=st.integers(0, 1000),
)  # fmt: skip
def test_crop_and_flip_equals_a_loop_over_the_images(shape, padding, seed):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    before = x.clone()
    found, expected = (
        f(x, torch.Generator().manual_seed(seed), padding) for f in (crop_and_flip, crop_and_flip_by_hand)
    )
    assert torch.equal(found, expected)
    assert torch.equal(x, before)


def test_crop_and_flip_pads_by_four_pixels_unless_told_otherwise():
    x = torch.rand(20, 3, 32, 32)
    found, expected = (f(x, torch.Generator().manual_seed(1)) for f in (crop_and_flip, crop_and_flip_by_hand))
    assert torch.equal(found, expected)


def test_shifts_are_uniform_in_both_directions_and_half_of_the_images_are_mirrored():
    n = 4000
    x = torch.zeros(n, 1, 11, 11)
    x[:, :, 5, 5], x[:, :, 5, 6] = 1.0, 0.5  # a centre and what is to the right of it
    found = crop_and_flip(x, torch.Generator().manual_seed(0), padding=4)
    place = (found == 1).flatten(1).float().argmax(1)
    rows, columns = (place // 11).bincount(minlength=11), (place % 11).bincount(minlength=11)
    for counts in (rows, columns):
        assert counts[0] == counts[10] == 0
        assert (counts[1:10] - n / 9).abs().max() < 4 * (n * 8 / 81) ** 0.5
    after = found.flatten(1).gather(1, (place + 1)[:, None])
    assert abs((after == 0.5).float().mean() - 0.5) < 4 * 0.5 / n**0.5  # in the others it is to the left


def test_augmented_batches_are_the_plain_ones_moved_with_their_labels_untouched(coloured):
    plain, moved = Batches(coloured, 40, seed=3), Batches(coloured, 40, seed=3, augment=crop_and_flip)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(100, generator=generator)
    batches = list(zip(plain, moved, strict=True))
    assert len(batches) == len(moved) == 2
    for index, ((x, y), (moved_x, moved_y)) in zip(order[:80].split(40), batches, strict=True):
        assert torch.equal(y, moved_y) and torch.equal(y, coloured.y[index])
        assert torch.equal(x, coloured.x[index]) and not torch.equal(x, moved_x)
        assert torch.equal(moved_x, crop_and_flip_by_hand(x, generator))


def assert_same_batches(found, expected):
    for (x, y), (other_x, other_y) in zip(found, expected, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_augmented_batches_repeat_with_the_seed_and_differ_between_epochs(coloured):
    first, same, other = (Batches(coloured, 25, seed=seed, augment=crop_and_flip) for seed in (1, 1, 2))
    epochs = [list(first) for _ in range(2)]
    torch.rand(5)  # the global random state has no say
    for epoch in epochs:
        assert_same_batches(list(same), epoch)
    sums = [torch.cat([x for x, _ in epoch]).sum().item() for epoch in (*epochs, list(other))]
    assert len(set(sums)) == 3  # cropping takes away something else each time


def test_augmented_batches_resume_from_the_state_of_the_generator(coloured):
    batches = Batches(coloured, 25, augment=crop_and_flip)
    list(batches)
    state = batches.generator.get_state()
    resumed = Batches(coloured, 25, seed=99, augment=crop_and_flip)
    resumed.generator.set_state(state)
    for _ in range(2):
        assert_same_batches(list(resumed), list(batches))


def test_a_default_device_set_elsewhere_does_not_change_the_augmentation():
    x = torch.rand(6, 3, 8, 8)
    expected = crop_and_flip(x, torch.Generator().manual_seed(0))
    with torch.device("meta"):
        assert torch.equal(crop_and_flip(x, torch.Generator("cpu").manual_seed(0)), expected)


class Transfers(TorchDispatchMode):
    """Counts the tensors that go from the CPU to another device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        from_cpu = isinstance(found, torch.Tensor) and any(
            isinstance(x, torch.Tensor) and x.device.type == "cpu" and x.dim() for x in args
        )
        self.count += from_cpu and found.device.type != "cpu"
        return found


def test_the_augmentation_moves_what_it_draws_to_the_images_device_at_once():
    with Transfers() as transfers:
        found = crop_and_flip(torch.empty(6, 3, 8, 8, device="meta"), torch.Generator().manual_seed(0))
    assert found.shape == (6, 3, 8, 8) and found.device.type == "meta"
    assert transfers.count == 1


def test_shuffled_images_are_the_same_ones_each_with_its_label(mnist_test):
    mixed = mnist_test.shuffled(3)
    place = [int((mnist_test.x == x).flatten(1).all(1).nonzero()[0, 0]) for x in mixed.x]
    assert sorted(place) == list(range(len(mnist_test))) != place
    assert torch.equal(mixed.y, mnist_test.y[place])
    assert torch.equal(mnist_test.shuffled(3).x, mixed.x) and not torch.equal(
        mnist_test.shuffled(4).x, mixed.x
    )
    assert (mixed.name, mixed.split, mixed.digest) == (mnist_test.name, mnist_test.split, mnist_test.digest)
