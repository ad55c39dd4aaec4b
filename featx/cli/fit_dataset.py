"""``featx fit`` on a dataset: the embeddings are there, so no image is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from featx import dataset
from featx._memory import available_memory
from featx._text import printable
from featx.cli.fit import (
    MOST_OF_POOL,
    _describe,
    _estimate,
    _folds,
    check_target,
    choose_head,
    note_twins,
    note_unsure,
    save_with_card,
    sees_content,
)
from featx.cli.options import note
from featx.dataset.manifest import MANIFEST
from featx.errors import InputError
from featx.heads import HEADS, learns_in_parts, make_head, sgd_candidates
from featx.out_of_core import FEWEST, fit_out_of_core
from featx.report.metrics import describe_score, score
from featx.selection.folds import find_groups
from featx.sources.labels import read_target
from featx.sources.listing import Listing
from featx.sources.tables import is_missing

__all__ = ["fit_dataset", "is_dataset"]

#: Options that the dataset has answered already.
_ANSWERED = (
    *("layer", "pooling", "crop", "precision", "decode", "l2_normalize"),
    *("path_column", "target", "search", "max_ms", "max_mb", "cache", "cache_folder"),
)
#: What fitting in memory takes at most, in copies of the features (measured: 9.7): those of the
#: folds, scaled, and once more in float64.
_COPIES = 10


def is_dataset(source: str) -> bool:
    """Tell a folder of embeddings from a folder of images."""
    return (Path(source) / MANIFEST).is_file()


def fit_dataset(options: argparse.Namespace) -> None:
    """Estimate on left-out rows, fit on all, save with the extractor that made them."""
    for name in _ANSWERED:
        if getattr(options, name, None) not in (None, False):
            raise InputError(
                f"--{name.replace('_', '-')}: {options.source} holds embeddings, which were made without asking this; "
                "leave the option out, or embed the images anew with it"
            )
    opened = dataset.open(options.source)
    backbones = options.backbone or [None]
    extractor = opened.extractor(
        backbone=backbones if len(backbones) > 1 else backbones[0],
        device=options.device,
        providers=options.providers,
        batch_size=options.batch_size,
        n_threads=options.threads,
    )
    rows, labels, pool = _labelled(opened)
    path_column, target_column = _columns(opened)
    target = read_target(
        Listing([], labels, None, target_column or "label", ()), options.task, log_target=options.log_target
    )
    y = np.array(target.values)
    name, head, found_score = _fit(opened, rows, y, target.task, options)
    if len(pool):
        some = pool[:MOST_OF_POOL]
        note_unsure(len(pool), [one.key for one in opened.look_up(some)], opened.take(some), head)
    pipeline = Pipeline([("features", extractor), ("head", head)])
    info = {"task": target.task, "path_column": path_column, "target_column": target_column, "n": len(y)}
    save_with_card(pipeline, y, found_score, info, options)
    where = f"{name} on {extractor.backbone}"
    print(printable(f"{options.output}: {where}, {len(y)} embeddings, {_describe(target.task, y)}"))
    if found_score:
        print(f"  {describe_score(found_score)}")


def _columns(opened: dataset.Dataset) -> tuple[str | None, str | None]:
    """Name the columns of the table that was embedded, if it was one."""
    found = {(one.path_column, one.target) for one in opened.manifest.generations}
    return found.pop() if len(found) == 1 else (None, None)


def _labelled(opened: dataset.Dataset) -> tuple[npt.NDArray[np.intp], list[str], npt.NDArray[np.intp]]:
    """Find the rows that have a label, and those that have none; tell of those without a vector."""
    folder = opened.folder
    if any(counts is None for counts in opened.manifest.counts):
        note(f"{folder}: is not complete; what is there is taken, and featx embed goes on with the rest")
    if n_failed := sum(1 for _ in opened.failures()):
        images = "image has no embedding and is" if n_failed == 1 else "images have no embedding and are"
        note(f"{n_failed} {images} left out; featx dataset info {folder} names the reasons")
    y = opened.y
    labels = [] if y is None else y.tolist()
    rows = [i for i, label in enumerate(labels) if not is_missing(label)]
    if not len(opened):
        raise InputError(f"{folder}: holds no image yet; featx embed goes on with it")
    if not rows:
        raise InputError(
            f"{folder}: no row has a label; embed a folder with a sub-folder a class, or a table with --target"
        )
    without = np.setdiff1d(np.arange(len(labels)), rows)
    return np.array(rows, np.intp), [labels[i] for i in rows], without


def _fit(
    opened: dataset.Dataset, rows: npt.NDArray[np.intp], y: npt.NDArray[Any], task: str, options: argparse.Namespace
) -> tuple[str, Any, dict[str, Any] | None]:
    """Fit in memory where there is enough, and else in parts; give the head's name, it, and an estimate."""
    name = choose_head(options.head, task, y.tolist())
    make_head(name, task=task, log_target=options.log_target)  # refuses what makes no sense
    check_target(task, y, options.log_target)
    too_little = _too_little_memory(len(rows), opened.n_features)
    if too_little and not learns_in_parts(name, task):
        if options.head:
            able = " or ".join(f"--head {one}" for one in HEADS if learns_in_parts(one, task))
            raise InputError(f"--head {name}: {too_little}; take {able}, which learn in parts, or more memory")
        name = "sgd"
    if too_little:
        note(f"{too_little}: {name} is fitted in parts")
    try:
        if too_little or (name == "sgd" and len(y) >= FEWEST):  # made for it: two fits instead of six
            return (name, *_fit_in_parts(opened, rows, y, task, name, options))
        X = opened.take(rows)
        groups = find_groups(X) if sees_content(opened.extractor()) else None
        if groups is not None:
            note_twins([opened.keys[i] for i in rows], y, groups)

        def make(folds: int) -> Any:
            return make_head(name, task=task, log_target=options.log_target, cv=folds)

        found_score = None if options.no_cross_validation else _estimate(make, X, y, task, groups)
        head = make(_folds(task, y)).fit(X, y)
        head.predict(X[:1])  # some heads find out only now that they have too little
    except ValueError as error:
        raise InputError(
            f"{name} cannot be fitted on {len(y)} embeddings ({error}); embed more images, or give another --head "
            "or --no-cross-validation"
        ) from error
    except MemoryError as error:
        raise InputError(
            f"{name}: out of memory on {len(y)} embeddings; give it more, or take --head sgd, which learns in parts"
        ) from error
    return name, head, found_score


def _too_little_memory(n_rows: int, n_features: int) -> str:
    needed, available = n_rows * n_features * 4 * _COPIES, available_memory()
    if available is None or needed <= available:
        return ""
    return (
        f"{n_rows} rows of {n_features} features take up to {tqdm.format_sizeof(needed, 'B')} to fit in memory, "
        f"and {tqdm.format_sizeof(available, 'B')} are to be had"
    )


def _fit_in_parts(
    opened: dataset.Dataset,
    rows: npt.NDArray[np.intp],
    y: npt.NDArray[Any],
    task: str,
    name: str,
    options: argparse.Namespace,
) -> tuple[Any, dict[str, Any] | None]:
    fitted = fit_out_of_core(
        make_head(name, task=task, log_target=options.log_target),
        opened,
        y,
        indices=rows,
        candidates=sgd_candidates(task, opened.n_features) if name == "sgd" else [{}],
        leave_out=not options.no_cross_validation,
    )
    if options.no_cross_validation:
        return fitted.head, None
    true, predicted = y[fitted.left_out], fitted.left_out_predictions
    return fitted.head, score(f"left-out images, {len(true)} of {len(y)}", true, predicted, task)
