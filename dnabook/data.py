"""Images as two tensors on the device: `load(name) -> Images(x, y)` with pixels in [0, 1].

MNIST travels inside the package, so every chapter and test runs offline on real digits. Color-MNIST
is derived from it and has CIFAR-10's shape. CIFAR-10 itself comes from `$DNABOOK_DATA`, else from
torchvision's download. Whatever is read is checked first: a file that is missing, cut short or
altered stops with the file's name, what was expected, and how to get it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import os
import socket
import ssl
import tarfile
import urllib.error
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

ASSETS = Path(__file__).parent / "assets" / "mnist"
NAMES = ("mnist", "color-mnist", "cifar10")
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# SHA-256 of the four original files, unpacked.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class DataError(RuntimeError):
    """A data file is missing, incomplete or altered. The message says which, and what to do."""


class DownloadError(DataError):
    """A data set is not on this machine and could not be downloaded."""


@dataclass(frozen=True)
class Images:
    """A labelled image set held as two tensors.

    x: (N, C, H, W) float32 in [0, 1];  y: (N,) int64 class indices.
    name: the data set, with its caveats ("cifar10 (JPEG)").  split: "train" or "test".
    digest: first 12 hex digits of the SHA-256 of the pixels and labels as stored, before any subset; for
      color-mnist, which is coloured later, of its name too.
    Images of one's own need none of the three: `Images(x, y)` are "own", of no split and no digest.
    Raises ValueError unless x has a label in y for each image.
    """

    x: Tensor
    y: Tensor
    name: str = "own"
    split: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        if self.y.dim() != 1 or self.x.shape[:1] != self.y.shape:
            raise ValueError(
                f"images (N, C, H, W) need labels (N,), got {tuple(self.x.shape)} and {tuple(self.y.shape)}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: slice | Tensor) -> Images:
        """The same set restricted to a slice, an index tensor or a boolean mask."""
        return replace(self, x=self.x[index], y=self.y[index])

    def shuffled(self, seed: int) -> Images:
        """The same set in random order, the same on every device: halves of it are alike, as those of MNIST's
        test images as they are stored are not."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed), device="cpu")
        return self[order.to(self.y.device)]

    def to(self, device: torch.device | str) -> Images:
        """The same set on another device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(
    name: str = "mnist",
    split: str = "train",
    *,
    limit: int | None = None,
    device: torch.device | str | None = None,
) -> Images:
    """The `train` or `test` images of "mnist", "color-mnist" or "cifar10", on the device.

    mnist        (N, 1, 28, 28), 60,000 and 10,000 images, from the package itself.
    color-mnist  (N, 3, 32, 32): MNIST padded to 32×32, each digit and its background in seeded random
                 colours. It stands in for CIFAR-10's shape where that cannot be had.
    cifar10      (N, 3, 32, 32), 50,000 and 10,000 images. `$DNABOOK_DATA` may name a folder holding
                 torchvision's `cifar-10-batches-py/`, or a folder or tar of `train/<class>/*.jpg` and
                 `test/<class>/*.jpg`. Otherwise torchvision downloads it and checks its checksum.
    limit        keeps the first `limit` images; the sets are not sorted by class.
    device       None: CUDA where there is one, else the CPU.

    Raises ValueError for an unknown name, split or limit, DataError for missing or damaged files.
    """
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(NAMES)}")
    if split not in ("train", "test"):
        raise ValueError(f'split is "train" or "test", got {split!r}')
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    pixels, labels, label = {"mnist": _mnist, "color-mnist": _mnist, "cifar10": _cifar10}[name](split)
    stored = hashlib.sha256(pixels.tobytes() + labels.tobytes())
    keep = slice(limit)
    x = torch.from_numpy(pixels[keep]).float().div_(255)
    y = torch.from_numpy(labels[keep]).long()
    if name == "color-mnist":
        x, label = _coloured(x, split), name
        stored.update(name.encode())  # else its digest would be MNIST's
    device = default_device() if device is None else device
    return Images(x.to(device), y.to(device), label, split, stored.hexdigest()[:12])


def load_or_stand_in(
    name: str, split: str = "train", *, limit: int | None = None, device: torch.device | str | None = None
) -> Images:
    """`load`, with "color-mnist" in the place of a "cifar10" that is neither here nor to be downloaded.

    The result's `.name` tells which it is. A damaged CIFAR-10, or a DNABOOK_DATA that leads nowhere, still
    raises DataError: only a failed download is stood in for.
    """
    try:
        return load(name, split, limit=limit, device=device)
    except DownloadError:
        return load("color-mnist", split, limit=limit, device=device)


class Batches:
    """Shuffled mini-batches, re-drawn each time it is iterated: one epoch is one `for`.

    Indexing happens on the images' device; the order comes from a CPU generator seeded once, so it is
    the same on every device. A last batch smaller than `batch_size` is dropped.
    `batches.generator` is the whole state: save and restore it to resume.

    augment: applied to every batch as `augment(x, generator)`, for example `crop_and_flip`.

    Raises ValueError when `batch_size` is below 1 or exceeds the number of images.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int = 0,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        if not 1 <= batch_size <= len(images):
            raise ValueError(f"batch_size must be in 1..{len(images)}, got {batch_size}")
        self.images, self.batch_size, self.augment = images, batch_size, augment
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = self.images
        order = torch.randperm(len(images), generator=self.generator, device="cpu").to(images.y.device)
        for index in order[: len(self) * self.batch_size].split(self.batch_size):
            x = images.x[index]
            yield x if self.augment is None else self.augment(x, self.generator), images.y[index]


def crop_and_flip(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """CIFAR-10's usual augmentation: images (N, C, H, W) shifted by up to `padding` pixels, half mirrored.

    What a shift uncovers is black. All images move in one gather on their device, without a loop.
    """
    n, _, height, width = x.shape
    shifts = torch.randint(-padding, padding + 1, (n, 2), generator=generator, device="cpu")
    mirrored = torch.rand(n, generator=generator, device="cpu") < 0.5
    drawn = torch.cat([shifts, mirrored[:, None]], 1)  # (N, 3): one transfer, not waited for
    drawn = drawn.pin_memory() if x.is_cuda else drawn
    dy, dx, mirrored = drawn.to(x.device, non_blocking=x.is_cuda).unbind(1)
    rows = torch.arange(height, device=x.device) + dy[:, None]  # (N, H): where each row comes from
    columns = torch.arange(width, device=x.device)
    columns = torch.where(mirrored[:, None] == 1, columns.flip(0), columns) + dx[:, None]  # (N, W)
    inside_h, inside_w = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    inside = inside_h[:, :, None] & inside_w[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = x[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside[:, None]


# --- MNIST ---------------------------------------------------------------------------------------


def _mnist(split: str) -> tuple[np.ndarray, np.ndarray, str]:
    stem = "train" if split == "train" else "t10k"
    x = _idx(f"{stem}-images-idx3-ubyte").reshape(-1, 1, 28, 28)
    return x, _idx(f"{stem}-labels-idx1-ubyte"), "mnist"


def _idx(name: str) -> np.ndarray:
    """The values of one idx file: a big-endian header of 4 + 4·ndim bytes, then unsigned bytes."""
    path, again = ASSETS / f"{name}.gz", "reinstall dnabook to restore it"
    if not path.exists():
        raise DataError(f"{path} is missing: expected the MNIST file {name}, gzipped; {again}")
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut short or damaged ({error}); {again}") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != MNIST_SHA256[name]:
        raise DataError(f"{path} has SHA-256 {found}, expected {MNIST_SHA256[name]}; {again}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).copy()


def _coloured(x: Tensor, split: str) -> Tensor:
    """Digits (N, 1, 28, 28) as (N, 3, 32, 32): dark random ground, bright random ink, both seeded."""
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    colours = torch.rand(len(x), 2, 3, 1, 1, generator=generator, device="cpu")  # image by image
    ground, ink = colours.unbind(1)
    x = torch.nn.functional.pad(x, (2, 2, 2, 2))  # (N, 1, 32, 32)
    return (0.4 * ground) * (1 - x) + (0.5 + 0.5 * ink) * x


# --- CIFAR-10 ------------------------------------------------------------------------------------

_CIFAR10_HELP = (
    "set DNABOOK_DATA to a folder that holds cifar-10-batches-py/, or to a folder or tar of "
    "train/<class>/*.jpg and test/<class>/*.jpg; or unset it and go online, and torchvision "
    "downloads CIFAR-10"
)


# How a download fails: no way there, refused, broken off, or too slow.
_NO_DOWNLOAD = (
    urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError,
)  # fmt: skip
PATIENCE = 60  # seconds without a byte, after which a download has failed


def cache_folder() -> Path:
    """Downloads and checkpoints: $DNABOOK_CACHE, else $XDG_CACHE_HOME/dnabook, else ~/.cache/dnabook."""
    if given := os.environ.get("DNABOOK_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dnabook"


def _cifar10(split: str) -> tuple[np.ndarray, np.ndarray, str]:
    given = os.environ.get("DNABOOK_DATA")
    if not given:
        return _cifar10_torchvision(cache_folder(), split, download=True)
    root = Path(given).expanduser()
    if not root.exists():
        raise DataError(f"DNABOOK_DATA names {root}, which does not exist; {_CIFAR10_HELP}")
    if (root / "cifar-10-batches-py").is_dir():
        return _cifar10_torchvision(root, split, download=False)
    return _cifar10_jpeg(root, split)


def _cifar10_torchvision(root: Path, split: str, *, download: bool):
    from torchvision.datasets import CIFAR10

    alone = FileLock(root / "cifar10.lock") if download else contextlib.nullcontext()
    try:  # torchvision compares the MD5 of every file, before and after unpacking
        with alone, _patient():
            data = CIFAR10(root, train=split == "train", download=download)
    except Exception as error:
        here = not download or (root / CIFAR10.base_folder).exists()
        kind = DownloadError if isinstance(error, _NO_DOWNLOAD) and not here else DataError
        raise kind(f"CIFAR-10 in {root} is missing or damaged ({error}); {_CIFAR10_HELP}") from error
    return np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.array(data.targets, np.int64), "cifar10"


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Connections that fail after `PATIENCE`; torchvision would wait without end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cifar10_jpeg(root: Path, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """CIFAR-10 re-encoded as JPEG, from a folder or a tar, in an order fixed by a seed."""
    from PIL import Image

    each = 5000 if split == "train" else 1000
    files = dict(_jpegs(root, split))
    for name in CIFAR10_CLASSES:
        found = sum(path.startswith(f"{name}/") for path in files)
        if found != each:
            raise DataError(
                f"{root} holds {found} images in {split}/{name}/, expected {each}; {_CIFAR10_HELP}"
            )
    unknown = {path.split("/")[0] for path in files} - set(CIFAR10_CLASSES)
    if unknown:
        raise DataError(f"{root} holds unknown classes in {split}/: {sorted(unknown)}; {_CIFAR10_HELP}")
    paths = sorted(files)
    x = np.empty((len(paths), 3, 32, 32), np.uint8)
    for i, path in enumerate(paths):
        try:
            image = np.asarray(Image.open(io.BytesIO(files[path])).convert("RGB"))
        except OSError as error:
            raise DataError(f"{split}/{path} in {root} is damaged ({error}); {_CIFAR10_HELP}") from error
        if image.shape != (32, 32, 3):
            raise DataError(f"{split}/{path} in {root} is {image.shape}, expected (32, 32, 3)")
        x[i] = image.transpose(2, 0, 1)
    y = np.array([CIFAR10_CLASSES.index(path.split("/")[0]) for path in paths], np.int64)
    order = np.random.default_rng(0).permutation(len(y))  # so that the first n images are of all classes
    return x[order], y[order], "cifar10 (JPEG)"


def _jpegs(root: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """("<class>/<file>", bytes) for every JPEG of one split, from a folder or a tar."""
    if root.is_dir():
        for path in (root / split).glob("*/*.jpg"):
            yield f"{path.parent.name}/{path.name}", path.read_bytes()
        return
    try:
        with tarfile.open(root) as tar:
            for member in tar:
                parts = member.name.split("/")
                if member.isfile() and parts[-3:-2] == [split] and parts[-1].endswith(".jpg"):
                    yield "/".join(parts[-2:]), tar.extractfile(member).read()
    except Exception as error:  # tarfile, zlib and lzma each raise their own
        raise DataError(f"{root} is not a readable tar ({error}); {_CIFAR10_HELP}") from error
