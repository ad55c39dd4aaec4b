"""``featx fit``: fit a head on labelled images or stored embeddings, and save the pipeline."""

from __future__ import annotations

import argparse
from typing import Any

from featx import dataset
from featx._text import printable
from featx.cli.options import (
    add_features,
    add_patterns,
    add_running,
    add_separator,
    make_extractor,
    running_parameters,
    split_names,
)
from featx.cli.remarks import add_fit, fit_parameters, make_text_features, print_remarks
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.fitting import FittedModel, fit, open_model
from featx.fitting.cells import COLUMN_KINDS
from featx.heads import HEADS
from featx.page import report
from featx.reporting.card import check_card
from featx.selection.search import EFFORTS
from featx.sources import is_dataset
from featx.text import TextExtractor
from featx.writers import check_output

_FEATURES = ("layer", "pooling", "crop", "precision", "decode", "l2_normalize")
#: Options of features and sources, which a dataset of embeddings has settled.
_SETTLED = (
    *(*_FEATURES, "cache", "cache_folder"),
    *("path_column", "text_column", "target", "include", "exclude", "search", "max_ms", "max_mb"),
)

EXAMPLE = (
    """\
  featx fit photos/train -o ants.featx          each sub-folder is a class
  featx fit prices.csv --path-column file --target price --log-target -o price.featx
  featx fit photos/train --search quick -o ants.featx     chooses features and head, see featx compare
  featx fit vectors -o ants.featx               of featx embed photos/train -o vectors: reads no image
  featx fit new --continue ants.featx -o ants2.featx     fits again on the old images and on new ones
  featx fit photos/train --views 6 -o ants.featx          fits on crops and the mirror image of each image as well
  featx fit photos/train --private 1 -o ants.featx       hides each single image, see docs/privacy.md
  featx fit photos/train --labels corrected.csv -o ants.featx    labels that were corrected by hand
  featx fit photos/train --class-weight balanced -o ants.featx     rare classes count as much as others
  featx fit pets.csv --target tags --separator '|' -o pets.featx    several labels per image, such as cat|dog
  featx fit pets.csv --target has_cat,has_dog -o pets.featx         the same labels in columns of 0 and 1
  featx fit rooms.csv --target price,rooms -o rooms.featx           several numbers
  featx fit skin.csv --order mild,moderate,severe -o skin.featx     classes that have an order
  featx fit --head zero_shot --classes cat,dog --backbone hf:OWNER/NAME -o pets.featx    only names, no image
  featx fit flats.csv --columns rooms,area,zip:category --target price -o flats.featx       numbers and categories
  featx fit few --head zero_shot --backbone hf:OWNER/NAME -o pets.featx     names and few images per class
Then: featx evaluate ants.featx photos/val
      featx predict ants.featx new/*.jpg -o new.csv

A dataset that does not fit into memory is fitted in parts: see --head sgd.

heads:
"""
    + "\n".join(f"  {name:20} {head.what}" for name, head in HEADS.items())
    + ("\n  zero_shot            the names of the classes, for an image tower with a text tower (docs/heads.md)")
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "source",
        nargs="*",
        metavar="SOURCE",
        help="a folder with one sub-folder per class, a glob, archive, table or dataset; several with --continue",
    )
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.featx", help="file to write")
    parser.add_argument("--head", metavar="NAME", help="default: logistic_regression, ridge for numbers")
    parser.add_argument(
        "--classes",
        action="names",
        type=split_names,
        metavar="C,C[,C]",
        help="names of the classes of --head zero_shot, without SOURCE or with few images",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help='with --head zero_shot; default: "a photo of a {}"',
    )
    parser.add_argument("--search", choices=list(EFFORTS), help="choose features and head for these images or texts")
    parser.add_argument(
        "--max-ms", type=float, metavar="MS", help="with --search: milliseconds per image on this machine"
    )
    parser.add_argument("--max-mb", type=float, metavar="MB", help="with --search: megabytes of the backbone")
    parser.add_argument("--embed-backbone", action="store_true", help="store the backbone in the file")
    parser.add_argument(
        "--continue",
        dest="continue_from",
        metavar="MODEL",
        help="fit the head of this model again, on its images and on the images of SOURCE",
    )
    parser.add_argument(
        "--report", metavar="FILE.html", help="write a page with mistakes and heat maps, each image left out in turn"
    )
    parser.add_argument(
        "--keep-answers",
        action="store_true",
        help="write the answer for each left-out image to MODEL.featx.answers.csv",
    )
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="fit on N views of each image: its mirror image, and crops"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="adapt the network as well, if that is better on left-out images: featx tune",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE.csv",
        help="corrected labels, columns path and label: they replace the labels of SOURCE",
    )
    parser.add_argument(
        "--private", type=float, metavar="EPSILON", help="differential privacy for each image; nothing else is released"
    )
    parser.add_argument("--delta", type=float, metavar="D", help="with --private: at most 1 / images (default: 1e-5)")
    add_separator(parser)
    parser.add_argument(
        "--order",
        action="names",
        type=_read_order,
        metavar="C,C[,C]",
        help="classes from the lowest to the highest, or numbers: evaluate measures the steps between them",
    )
    parser.add_argument(
        "--text-column", metavar="C", help="column of the table that holds texts (extra text), see docs/text.md"
    )
    parser.add_argument(
        "--image-column",
        action="names",
        type=split_names,
        metavar="C[,C]",
        help="columns of images, for a model of several kinds of columns",
    )
    parser.add_argument(
        "--columns",
        action="names",
        type=split_names,
        metavar="C[:KIND][,C]",
        help="columns of numbers and categories beside images or texts, with the kind if it is not clear, as in "
        "zip:category or area:number: docs/columns.md",
    )
    parser.add_argument(
        "--combine-images",
        choices=["concatenate", "mean"],
        default="concatenate",
        help="features of several columns of images side by side, or the mean of the images of a row (cells may be "
        "empty); default: concatenate",
    )
    parser.add_argument("--no-cross-validation", action="store_true", help="skip the estimate on left-out images")
    add_fit(parser)
    add_patterns(parser)
    add_features(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Fit, save, print."""
    check_output(options.output, (".featx",), options.source)
    check_card(options.output)
    if options.report:
        check_output(options.report, (".html",), options.source)
    _check_private(options)
    continued = _open_continued(options)
    if not options.source and not options.classes:
        raise InputError("no SOURCE: expected labelled images, or --head zero_shot with --classes")
    if len(options.source) > 1 and not continued:
        raise InputError(
            f"{len(options.source)} sources: expected one folder, table or archive with labels, or several sources "
            "with --continue MODEL"
        )
    result = fit(
        options.source[0] if len(options.source) == 1 else options.source or None,
        head=options.head,
        classes=options.classes,
        template=options.template,
        search=_read_search(options),
        views=options.views,
        extractor=None if continued else _make_extractor(options),
        continue_from=continued,
        max_ms=options.max_ms,
        max_mb=options.max_mb,
        estimate=not options.no_cross_validation,
        tune=options.tune,
        labels=options.labels,
        private=options.private,
        delta=options.delta,
        separator=options.separator,
        order=options.order,
        text_column=options.text_column,
        image_column=options.image_column,
        combine_images=options.combine_images,
        columns=_read_columns(options.columns),
        **fit_parameters(options),
    )
    print_remarks(result)
    result.save(options.output, embed_backbone=options.embed_backbone or None, keep_answers=options.keep_answers)
    if options.report:
        report(result, title=options.output).save(options.report)
    print(printable(f"{options.output}: ") + "\n".join(map(printable, str(result).split("\n"))))


def _read_order(text: str) -> bool | list[str]:
    return True if text == "numbers" else split_names(text)


def _read_columns(names: str | list[str] | None) -> list[str] | dict[str, str | None] | None:
    """Read columns, and the kind of a column after its last colon; another colon is a part of the name."""
    if names is None:
        return None
    pairs: list[tuple[str, str | None]] = []
    for text in [names] if isinstance(names, str) else names:
        name, _, kind = text.rpartition(":")
        pairs.append((name, kind) if name and kind in COLUMN_KINDS else (text, None))
    columns = [name for name, _ in pairs]
    # a list shows a name that is given twice
    return dict(pairs) if len(set(columns)) == len(columns) else columns


def _check_private(options: argparse.Namespace) -> None:
    """Refuse outputs and a cache that would release more than the file of a private fit."""
    for name in ("report", "keep_answers", "cache", "cache_folder") if options.private is not None else ():
        if getattr(options, name):
            raise InputError(
                f"--{name.replace('_', '-')}: not with --private, whose file is the only release; leave the option out"
            )


def _open_continued(options: argparse.Namespace) -> FittedModel | None:
    """Open the model of --continue, which takes no option of features."""
    if options.continue_from is None:
        return None
    for name in (*_FEATURES, "search", "max_ms", "max_mb"):
        if getattr(options, name) not in (None, False, []):
            raise InputError(
                f"--{name.replace('_', '-')}: the features of {options.continue_from} are taken over, so this is "
                "settled; leave the option out"
            )
    backbone = options.backbone[0] if options.backbone else None
    model = open_model(options.continue_from, backbone=backbone)
    model.extractor.set_params(**running_parameters(options))
    return model


def _make_extractor(options: argparse.Namespace) -> FeatureExtractor | TextExtractor:
    """Make the extractor that the options describe; a dataset has its own extractor and takes no feature options."""
    (source,) = options.source or (None,)
    stored = source if source is not None and is_dataset(source) else None
    if options.text_column and not options.image_column and stored is None:
        if not options.search:
            return make_text_features(options)
        names = ("precision", "l2_normalize")  # named features are the only candidates
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        return TextExtractor(**given, **running_parameters(options))
    if stored is None:
        if not options.search:
            return make_extractor(options)
        features = {"precision": options.precision, "l2_normalize": options.l2_normalize}
        return FeatureExtractor(decode=options.decode or "exact", **features, **running_parameters(options))
    for name in _SETTLED:
        if getattr(options, name) not in (None, False, []):
            raise InputError(
                f"--{name.replace('_', '-')}: {stored} holds embeddings, so this is settled; "
                "leave the option out, or embed again with it"
            )
    backbones = options.backbone or [None]
    return dataset.open(stored).extractor(  # type: ignore[no-any-return]
        backbone=backbones if len(backbones) > 1 else backbones[0], **running_parameters(options)
    )


def _read_search(options: argparse.Namespace) -> dict[str, Any] | None:
    """Collect the arguments of a search; named features are the only candidates."""
    if not options.search:
        return None
    named = {
        "backbones": options.backbone,
        "layers": None if options.layer is None else [options.layer],
        "poolings": [options.pooling] if options.pooling else None,
        "crops": [options.crop] if options.crop else None,
    }
    return {"effort": options.search, **{name: value for name, value in named.items() if value is not None}}
