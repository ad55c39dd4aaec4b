"""Run the frozen trunk once for some views of each image, and keep the values at the cut on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._files import scratch_folder, write_whole
from featx._validation import check_integer
from featx.backbones.file import require_images
from featx.cache.keys import digest_content, digest_setting
from featx.errors import Failure, ImageError, InputError, UnreadableError
from featx.images.budget import pixel_budget
from featx.images.containers import list_items
from featx.images.decode import decode, describe, read
from featx.images.preprocess import to_canvas
from featx.images.views import MAX_VIEWS, Views
from featx.inference.spec import BackboneSpec, ValueParameters, make_spec
from featx.inference.transformer import BackboneTransformer
from featx.inference.workers import count_threads
from featx.session import Session
from featx.tuning.graph import Trunk, cut

if TYPE_CHECKING:
    from featx.extractor import FeatureExtractor

__all__ = [
    "Activations",
    "Store",
    "Work",
    "check_range",
    "cut_for",
    "embed_activations",
    "fill",
    "limit_views",
    "open_store",
    "take_backbone",
]

Indices = npt.NDArray[np.intp]

#: Images, or texts, per chunk: the values of a chunk are computed and recorded as done together.
_CHUNK = 64
_MAX_FLOAT16 = float(np.finfo(np.float16).max)


class Activations:
    """Values at the cut of a backbone for some views of each image, in float16 on disk.

    Parameters
    ----------
    trunk : Trunk
        The cut backbone.
    values : ndarray of float16, shape (n_images, n_views, *trunk.shape)
        The values, mapped from a file.

    Attributes
    ----------
    n_images, n_views : int
        Number of images, and of views of each.
    """

    def __init__(self, trunk: Trunk, values: npt.NDArray[np.float16]) -> None:
        self.trunk, self._values = trunk, values
        self.n_images, self.n_views = (int(size) for size in values.shape[:2])

    def __len__(self) -> int:
        return self.n_images

    def __repr__(self) -> str:
        return f"Activations({self.n_images} images, {self.n_views} views, {self.trunk.layer} {self.trunk.shape})"

    def take(self, rows: npt.ArrayLike, view: int | npt.ArrayLike = 0) -> npt.NDArray[np.float32]:
        """Read the values of some images, of shape (n, *trunk.shape), in one view or in one view per image."""
        rows = np.asarray(rows)
        return np.asarray(self._values[rows, np.broadcast_to(view, rows.shape)], np.float32)

    def arrange(self, rows: Indices) -> Indices:
        """Return rows in an order that makes `split` divide few batches; images keep their order."""
        return rows

    def split(self, rows: Indices, size: int) -> Iterator[Indices]:
        """Yield positions in ``rows`` of at most ``size`` items whose values can be taken together."""
        return (np.arange(i, min(i + size, len(rows))) for i in range(0, len(rows), size))


def take_backbone(extractor: BackboneTransformer) -> tuple[BackboneSpec, ValueParameters]:
    """Return the backbone of an extractor, and its parameters; raise InputError if it has several."""
    spec = make_spec(extractor.get_params(deep=False), kind=extractor.kind)
    if len(spec.parts) > 1:
        names = ", ".join(part.backbone.name for part in spec.parts)
        raise InputError(
            f"backbone: got {len(spec.parts)} ({names}); expected one, since only one network can be tuned"
        )
    return spec.parts[0], spec.values


def cut_for(extractor: BackboneTransformer, layer: str | int | None) -> Trunk:
    """Cut the backbone of an extractor at a layer, for the extractor's own layers, pooling and normalisation.

    Raises InputError if the extractor has several backbones.
    """
    part, values = take_backbone(extractor)
    return cut(
        part.backbone,
        layer,
        output=list(part.widths),
        pooling=values["pooling"],
        l2_normalize=values["l2_normalize"],
    )


def embed_activations(
    images: Any,
    extractor: FeatureExtractor,
    layer: str | int | None,
    *,
    n_views: int = 6,
    folder: str | os.PathLike[str] | None = None,
    max_bytes: float = 2e9,
    events: Events | None = None,
) -> Activations:
    """Run the trunk of a backbone on views of images, and keep the values at the cut.

    Parameters
    ----------
    images : sequence or ndarray
        As for `featx.FeatureExtractor.transform`.
    extractor : FeatureExtractor
        Its backbone is cut. Its ``crop``, ``decode``, ``device``, ``batch_size`` and ``n_threads`` are used.
    layer : str, int or None
        Layer at which the backbone is cut.
    n_views : int, default=6
        Views of each image: as the extractor prepares it, mirrored, and crops; see `featx.images.views`.
        Fewer views are used if they would take more than ``max_bytes``.
    folder : str, path or None, default=None
        Folder that keeps the values, so that a later call with the same images, backbone and layer goes on where an
        earlier call was stopped. None is a temporary folder, which is removed with the result.
    max_bytes : float, default=2e9
        Largest number of bytes on disk. If ``folder`` holds values of the same images at other layers, the
        oldest are removed to stay within the limit.
    events : Events or None, default=None
        Receives progress.

    Returns
    -------
    Activations

    Raises
    ------
    ImageError
        An image cannot be read.
    InputError
        There are no images, one view of each image takes more than ``max_bytes``, the disk has too little room, or
        values at the cut are beyond the range of float16.
    BackboneError
        The backbone cannot be cut at this layer.

    Examples
    --------
    >>> import featx
    >>> from featx.tuning import embed_activations
    >>> X, _ = featx.samples.load_fashion_mnist("test")
    >>> activations = embed_activations(X[:4], featx.FeatureExtractor(), "stage4", n_views=2)
    >>> activations.take([0, 3], view=1).shape
    (2, 320, 7, 7)
    """
    check_integer("n_views", n_views)
    if n_views > MAX_VIEWS:
        raise InputError(f"n_views={n_views}: expected at most {MAX_VIEWS}")
    events = events or Events()
    items = list_items(images)
    trunk = cut_for(extractor, layer)
    n_wanted, n_views = n_views, limit_views(trunk, len(items), n_views, max_bytes)
    if n_views < n_wanted:
        limit = f"{max_bytes / 1e9:.1f} GB on disk"
        events.note(f"{n_views} views of each image instead of {n_wanted}, to keep within {limit}")
    session = Session(trunk.model, extractor.device, extractor.providers)
    setting = {
        "identity": trunk.backbone.identity,
        "tensor": trunk.tensor,
        "n_views": n_views,
        "crop": extractor.crop,
        "decode": extractor.decode,
    }
    key = digest_setting(setting, session.device, extractor.providers)
    place = None if folder is None else (Path(folder), _digest_images(items), key)
    store = open_store((len(items), n_views, *trunk.shape), place, max_bytes)
    work = _Work(store, items, trunk, extractor, session)
    fill(store, len(items), work, count_threads(extractor.n_threads), events)
    return Activations(trunk, store.values)


def limit_views(trunk: Trunk, n_images: int, n_views: int, max_bytes: float) -> int:
    """Return the number of views whose values at the cut fit into ``max_bytes``; raise InputError if none fits."""
    if not n_images:
        raise InputError("images: got none; expected at least one")
    bytes_per_view = n_images * trunk.n_bytes
    n_fitting = int(min(n_views, max_bytes / bytes_per_view))
    if n_fitting < 1:
        raise InputError(
            f"max_bytes={max_bytes:.2g}: {n_images:,} images take {bytes_per_view / 1e9:.1f} GB at layer "
            f"{trunk.layer}; raise it, choose a later layer, or tune on fewer images"
        )
    return n_fitting


def open_store(shape: tuple[int, ...], place: tuple[Path, str, bytes] | None, max_bytes: float) -> Store:
    """Open a store of values of a shape.

    ``place`` holds a folder, the digest of the images, and the digest of the layer and settings. The oldest values of
    the same images at other layers are removed to keep within ``max_bytes``. Without a place, the values lie in a
    temporary folder, which is removed with them.
    """
    if place is None:
        scratch = ExitStack()
        store = Store(scratch.enter_context(scratch_folder()), shape, keep=False)
        weakref.finalize(store.values, scratch.close)
        return store
    folder, images, key = place
    prefix = f"activations-{images[:24]}"
    path = folder / f"{prefix}-{key.hex()[:12]}"
    _make_room(path, list(folder.glob(f"{prefix}-*")), max_bytes - 2 * int(np.prod(shape)))
    return Store(path, shape)


def _make_room(place: Path, stores: Sequence[Path], n_bytes: float) -> None:
    """Remove the oldest stores except ``place`` until the others take ``n_bytes`` at most."""
    stats = {path: path.stat() for store in stores if store != place for path in store.glob("values.npy")}
    total = sum(stat.st_size for stat in stats.values())
    for path, stat in sorted(stats.items(), key=lambda each: each[1].st_mtime):
        if total <= n_bytes:
            return
        shutil.rmtree(path.parent)
        total -= stat.st_size


def _digest_images(items: Sequence[Any]) -> str:
    """Digest the content of all images."""
    digest = hashlib.sha256()
    for i, item in enumerate(items):
        try:
            content = read(item)
            if (item_digest := digest_content(content)) is None:
                item_digest = digest_content(np.asarray(decode(content)))
        except UnreadableError as error:
            raise ImageError(Failure(i, describe(item), str(error))) from None
        digest.update(item_digest or b"")
    return digest.hexdigest()


class Store:
    """A file of values and, beside it, a list of the chunks that were written completely."""

    def __init__(self, folder: Path, shape: tuple[int, ...], *, keep: bool = True) -> None:
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)
        self._state, path = folder / "done.json", folder / "values.npy"
        self.done: set[int] = set()
        if self._state.exists() and path.exists():
            try:
                np.lib.format.open_memmap(path, mode="r")  # raises for a cut file, which "r+" fills up with zeros
                self.values = np.lib.format.open_memmap(path, mode="r+")
                self.done = set(map(int, json.loads(self._state.read_text())["done"]))
            except (ValueError, KeyError, TypeError, OSError):  # damaged: computed anew
                self.done = set()
            else:
                if self.values.shape == shape and self.values.dtype == np.float16:
                    return
                self.done = set()
        self._state.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        needed, free = 2 * math.prod(shape), shutil.disk_usage(folder).free
        if needed > free:  # a mapped file on a full disk would end the process
            raise InputError(
                f"{folder}: {free / 1e9:.2g} GB are free, and the values of the frozen layers take "
                f"{needed / 1e9:.2g} GB; make room, or choose a folder on another disk, or fewer views"
            )
        try:
            self.values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        except OSError as error:  # NumPy does not name the file
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None

    def finish(self, chunks: Sequence[int]) -> None:
        """Record chunks as done, after their values are on disk."""
        self.done.update(chunks)
        if not self._keep:
            return
        self.values.flush()
        with write_whole(self._state) as scratch:
            scratch.write_text(json.dumps({"done": sorted(self.done)}))


class Work(Protocol):
    """Compute and store the values of a range of images or texts; setting ``stopped`` ends a call early."""

    stopped: bool

    def __call__(self, items: range, /) -> None:
        """Compute and store the values of these images or texts."""


def fill(store: Store, n_items: int, work: Work, n_threads: int, events: Events) -> None:
    """Compute the missing chunks in several threads."""

    def compute(chunk: int) -> int:
        start = chunk * _CHUNK
        work(range(start, start + _size(chunk, n_items)))
        return chunk

    chunks = range(-(-n_items // _CHUNK))
    missing = [chunk for chunk in chunks if chunk not in store.done]
    n_done = sum(_size(chunk, n_items) for chunk in store.done)
    events.begin("trunk", n_items, n_done)
    try:
        with ThreadPoolExecutor(n_threads, thread_name_prefix="featx-trunk") as pool:
            try:
                for chunk in _run_ahead(pool, compute, missing, 2 * n_threads):
                    store.finish([chunk])
                    events.advance(_size(chunk, n_items))
            except BaseException:
                work.stopped = True
                raise
    finally:
        events.end()


def _size(chunk: int, n_items: int) -> int:
    return min(_CHUNK, n_items - chunk * _CHUNK)


def _run_ahead(
    pool: ThreadPoolExecutor, work: Callable[[int], int], chunks: Sequence[int], n_ahead: int
) -> Iterator[int]:
    """Yield chunks as they are done, while at most ``n_ahead`` are under way."""
    futures: set[Future[int]] = set()
    left = list(reversed(chunks))
    try:
        while left or futures:
            while left and len(futures) < n_ahead:
                futures.add(pool.submit(work, left.pop()))
            finished, futures = wait(futures, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        for future in futures:
            future.cancel()


class _Work:
    """Compute the values of images in the calling thread."""

    def __init__(
        self, store: Store, items: Sequence[Any], trunk: Trunk, extractor: FeatureExtractor, session: Session
    ) -> None:
        self.store, self.items, self.session = store, items, session
        self.rules, self.crop, self.fast = require_images(trunk.backbone), extractor.crop, extractor.decode == "fast"
        self.layer = trunk.layer
        self.batch_size = extractor.batch_size or session.batch_size
        self.stopped = False

    def __call__(self, items: range) -> None:
        n_views = self.store.values.shape[1]
        step = max(1, self.batch_size // n_views)
        for i in range(items.start, items.stop, step):
            if self.stopped:
                break
            self._compute(range(i, min(i + step, items.stop)), step * n_views)

    def _compute(self, rows: range, n_fixed: int) -> None:
        n_views = self.store.values.shape[1]
        n = len(rows) * n_views
        size = n_fixed if self.session.fixed_shape else n
        pixels = np.zeros((size, 3, self.rules.height, self.rules.width), np.uint8)
        for place, row in enumerate(rows):
            out = pixels[place * n_views : (place + 1) * n_views]
            try:
                with pixel_budget.hold():
                    views = Views(decode(self.items[row], self.rules.resize if self.fast else None))
                    for number, canvas in enumerate(out):
                        to_canvas(views.make(number), self.rules, canvas, crop=self.crop, fast=self.fast)
            except UnreadableError as error:
                raise ImageError(Failure(row, describe(self.items[row]), str(error))) from None
        values = self.session.run(pixels)[:n]
        check_range(values, self.layer)
        self.store.values[rows.start : rows.stop] = values.reshape(len(rows), n_views, *values.shape[1:])


def check_range(values: npt.NDArray[np.float32], layer: str) -> None:
    """Raise InputError for values beyond the range of float16."""
    if not np.abs(values).max(initial=0.0) <= _MAX_FLOAT16:
        raise InputError(
            f"layer={layer!r}: values beyond {_MAX_FLOAT16:.0f}, which float16 does not hold; choose another layer"
        )
