"""``featx fit``: labelled images, in a folder, a table or embedded already, to a saved pipeline."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline

from featx._text import printable
from featx.backbones import open_backbone
from featx.cli.options import add_command, add_features, add_running, check_output, make_extractor, note, note_failures
from featx.errors import ImageError, InputError
from featx.extractor import FeatureExtractor
from featx.heads import DEFAULT_HEADS, HEADS, choose_default_head, make_head
from featx.inference.spec import list_backbones
from featx.persistence.archive import read_info, save
from featx.report.card import check_card, make_card, write_card
from featx.report.metrics import describe_score, score
from featx.report.snippets import use_saved
from featx.selection import SearchResult, search
from featx.selection.folds import find_groups, make_folds
from featx.selection.search import EFFORTS
from featx.sources import Listing, list_images
from featx.sources.labels import Target, leave_out_unlabelled, read_target

#: Images without a label that are looked at, and groups of near-duplicates that are named.
MOST_OF_POOL, _TWINS = 2000, 5

EXAMPLE = """\
  featx fit photos/train -o ants.featx          each sub-folder is a class
  featx fit prices.csv --path-column file --target price --log-target -o price.featx
  featx fit photos/train --search quick -o ants.featx     chooses features and head, see featx compare
  featx fit vectors -o ants.featx               of featx embed photos/train -o vectors: no image is read
Then: featx evaluate ants.featx photos/val
      featx predict ants.featx new/*.jpg -o new.csv

A dataset that does not fit into memory is fitted in parts: see --head sgd.

heads:
""" + "\n".join(f"  {name:20} {head.what}" for name, head in HEADS.items())


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "fit", "fit a head on labelled images and save the pipeline", EXAMPLE)
    parser.add_argument("source", metavar="SOURCE", help="a folder with a sub-folder a class, a table, or a dataset")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.featx", help="where to save")
    parser.add_argument(
        "--head", metavar="NAME", help="default: logistic_regression (many classes: sgd), ridge for numbers"
    )
    parser.add_argument("--task", choices=["classification", "regression"], help="default: by the target's values")
    parser.add_argument("--path-column", metavar="C", help="column of the table that holds the paths")
    parser.add_argument("--target", metavar="C", help="column of the table to predict")
    parser.add_argument("--log-target", action="store_true", help="fit the logarithm of a positive number")
    parser.add_argument("--search", choices=list(EFFORTS), help="choose features and head for these images")
    parser.add_argument("--max-ms", type=float, metavar="MS", help="with --search: milliseconds an image here")
    parser.add_argument("--max-mb", type=float, metavar="MB", help="with --search: megabytes of the network")
    parser.add_argument("--embed-backbone", action="store_true", help="put the backbone into the file")
    parser.add_argument("--no-cross-validation", action="store_true", help="skip the estimate on left-out images")
    add_features(parser)
    add_running(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Embed once, estimate on left-out images, fit on all, save."""
    check_output(options.output, (".featx",), [options.source])
    check_card(options.output)
    from featx.cli.fit_dataset import fit_dataset, is_dataset  # here, since it uses what stands below

    if is_dataset(options.source):
        fit_dataset(options)
        return
    _check_search(options)
    listing = list_images(options.source, path_column=options.path_column, target=options.target, need_target=True)
    listing, pool = leave_out_unlabelled(listing)
    note(*listing.notes)
    target = read_target(listing, options.task, log_target=options.log_target)
    if not options.search:
        options.head = choose_head(options.head, target.task, target.values)
    make_head(options.head, task=target.task, log_target=options.log_target)  # before the long work
    check_target(target.task, np.array(target.values), options.log_target)
    found = _search(listing, target, options) if options.search else None
    extractor = found.extractor if found else make_extractor(options)
    embedded = found.embedded if found else extractor.embed(listing.items)
    note_failures(embedded.failures, "left out")
    kept = embedded.kept
    X, y = embedded.features[kept], np.array([target.values[i] for i in kept])

    def make(folds: int) -> Any:
        if found:
            return clone(found.head)
        return make_head(options.head, task=target.task, log_target=options.log_target, cv=folds)

    check_target(target.task, y, options.log_target)
    groups = find_groups(X) if sees_content(extractor) else None
    if groups is not None:
        note_twins([listing.names[i] for i in kept], y, groups)
    name = found.name if found else options.head
    try:
        found_score = None if options.no_cross_validation else _estimate(make, X, y, target.task, groups)
        head = make(_folds(target.task, y)).fit(X, y)
        head.predict(X[:1])  # some heads find out only now that they have too little
    except ValueError as error:
        raise InputError(
            f"{name} cannot be fitted on {len(y)} images ({error}); give more images, another --head, "
            "or --no-cross-validation"
        ) from error
    if pool:
        _note_pool(pool, extractor, head)
    pipeline = Pipeline([("features", extractor.set_params(progress=False)), ("head", head)])
    info = {
        "task": target.task,
        "path_column": listing.path_column,
        "target_column": listing.target_column,
        "n": len(kept),
    }
    extractor.set_params(cache=False)  # a matter of this machine, not of the model
    save_with_card(pipeline, y, found_score, info, options)
    where = f"{name} on {extractor.backbone} ({extractor.open_session().device})"
    print(printable(f"{options.output}: {where}, {len(kept)} images, {_describe(target.task, y)}"))
    if found:
        print(f"  chosen: {found.reason}")
    if found_score:
        print(f"  {describe_score(found_score)}")


def save_with_card(
    pipeline: Pipeline, y: Any, found_score: dict[str, Any] | None, info: dict[str, Any], options: argparse.Namespace
) -> None:
    """Save what was fitted, and write a model card beside it: counts and scores, no images."""
    if info["task"] == "classification":
        about: dict[str, Any] = {"counts": {str(label): n for label, n in sorted(Counter(y.tolist()).items())}}
    else:
        about = {"target": {"min": float(min(y)), "median": float(np.median(y)), "max": float(max(y))}}
    if found_score and found_score["values"]:
        about["score"] = found_score
    save(pipeline, options.output, embed_backbone=options.embed_backbone, info=info | about)
    name = os.path.basename(options.output)
    saved = read_info(options.output)
    write_card(options.output, make_card(name, saved, use_saved(name, saved)))


def _check_search(options: argparse.Namespace) -> None:
    if options.search:
        for name in ("precision", "l2_normalize"):
            if getattr(options, name):
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option}: with --search, the features are chosen; name backbones to choose among")
        return
    for name in ("max_ms", "max_mb"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: a budget for --search quick or --search thorough")


def _search(listing: Listing, target: Target, options: argparse.Namespace) -> SearchResult:
    """Choose features and head; what was asked for by name is kept."""
    base = make_extractor(argparse.Namespace(**{**vars(options), "backbone": None, "layer": None}))
    found = search(
        listing.items,
        np.array(target.values),
        effort=options.search,
        task=target.task,
        head=options.head,
        log_target=options.log_target,
        backbones=options.backbone,
        layers=None if options.layer is None else [options.layer],
        poolings=[options.pooling] if options.pooling else ("avg", "avgmax"),
        crops=[options.crop] if options.crop else ("center", "whole"),
        max_ms=options.max_ms,
        max_mb=options.max_mb,
        extractor=base,
    )
    note(found.comparison.reason)
    return found


def sees_content(extractor: FeatureExtractor) -> bool:
    """Tell whether features reach as deep as the network pools for itself; earlier ones are alike for many images."""
    deepest = open_backbone(list_backbones(extractor.backbone)[0], extractor.precision).select(None)[0].name
    return deepest in np.ravel(extractor.value_parameters_["layer"]) and extractor.pooling == "avg"


def note_twins(paths: Sequence[str], y: Any, groups: Any) -> None:
    """Name near-duplicates, those with different labels first."""
    twins = [np.flatnonzero(groups == group) for group in np.flatnonzero(np.bincount(groups) > 1)]
    n = sum(len(twin) - 1 for twin in twins)
    note(f"{n} of {len(paths)} images {'is a near-duplicate' if n == 1 else 'are near-duplicates'} of others:")
    at_odds = y.dtype.kind not in "fiu"
    for twin in sorted(twins, key=lambda twin: -len(set(y[twin].tolist())))[:_TWINS]:
        labels = sorted({str(label) for label in y[twin]})
        odd = f"  (labelled {' and '.join(labels)}: one is wrong)" if at_odds and len(labels) > 1 else ""
        print(printable(f"  {'  '.join(paths[i] for i in twin[:3])}{odd}"), file=sys.stderr)
    if len(twins) > _TWINS:
        print(f"  and {len(twins) - _TWINS} more", file=sys.stderr)


def _note_pool(pool: Listing, extractor: FeatureExtractor, head: Any) -> None:
    """Embed images without a label, and say which of them would teach the head most."""
    some = pool.items[:MOST_OF_POOL]
    try:
        embedded = extractor.embed(some)
    except ImageError as error:  # no reason to lose what was fitted
        note(f"{_describe_pool(len(pool))}; {error}")
        return
    note_failures(embedded.failures, "of those without a label")
    note_unsure(len(pool), [pool.names[i] for i in embedded.kept], embedded.features[embedded.kept], head)


def note_unsure(n: int, names: Sequence[str], X: npt.NDArray[np.float32], head: Any) -> None:
    """Name those of a pool of n that the head is least sure of."""
    text = _describe_pool(n)
    if hasattr(head, "predict_proba"):
        sure = head.predict_proba(X).max(axis=1)
        unsure = [names[i] for i in np.argsort(sure, kind="stable")[:5]]
        text += f"; the head is least sure of {', '.join(unsure)}: label these first"
    note(text)


def _describe_pool(n: int) -> str:
    return f"{n} {'image has' if n == 1 else 'images have'} no label and no part in the fit"


def choose_head(name: str | None, task: str, y: Collection[Any]) -> str:
    """Give the head that was asked for, or the one that suits the size of the task, and say so."""
    if name is not None:
        return name
    n_classes = len(set(y)) if task == "classification" else 0
    name = choose_default_head(task, len(y), n_classes)
    if name != DEFAULT_HEADS[task]:
        usual = DEFAULT_HEADS[task]
        note(f"{len(y)} images of {n_classes} classes: {name} is taken, since {usual} would take long (--head)")
    return name


def check_target(task: str, y: Any, log_target: bool) -> None:
    """Raise InputError when the target allows no fit."""
    if task == "regression":
        if len(y) < 2:
            raise InputError(f"{len(y)} image with a target; at least two are needed")
        if log_target and min(y) <= 0:
            raise InputError(f"--log-target: the target has values down to {min(y):g}, which have no logarithm")
        return
    counts = Counter(y.tolist())
    if len(counts) < 2:
        raise InputError(f"every readable image is of class {next(iter(counts))}; at least two classes are needed")
    if single := sorted(label for label, n in counts.items() if n < 2):
        names = ", ".join(map(repr, single[:5])) + (", ..." if len(single) > 5 else "")
        raise InputError(
            f"{len(single)} of {len(counts)} classes have a single readable image ({names}); "
            "at least two of each are needed"
        )


def _folds(task: str, y: Any) -> int:
    """Choose folds for cross-validation: five, or as many as the rarest class has images."""
    return min(5, len(y) if task == "regression" else min(Counter(y.tolist()).values()))


def _estimate(make: Callable[[int], Any], X: Any, y: Any, task: str, groups: Any) -> dict[str, Any]:
    """Measure the head on images that it was not fitted on."""
    folds = _folds(task, y)
    splitter, together = make_folds(task, y, groups, n_folds=folds)
    how = f"left-out images, {folds} folds{', near-duplicates on one side' if together else ''}"
    if task == "regression":
        return score(how, y, cross_val_predict(make(folds), X, y, cv=splitter), task)
    rarest = min(Counter(y.tolist()).values())
    inside = min(5, rarest - -(-rarest // folds))  # images of the rarest class that a fold leaves to fit on
    if inside < 2:
        how = "too few images of a class to estimate the accuracy; run featx evaluate on others"
        return {"how": how, "values": {}}
    return score(how, y, cross_val_predict(make(inside), X, y, cv=splitter), task)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _describe(task: str, y: Any) -> str:
    if task == "regression":
        return f"target {_plain(min(y))} to {_plain(max(y))}"
    counts = Counter(y.tolist())
    first = ", ".join(f"{label} {n}" for label, n in sorted(counts.items())[:10])
    return f"{len(counts)} classes ({first}{', ...' if len(counts) > 10 else ''})"
