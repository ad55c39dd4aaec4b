"""``featx evaluate``: measure saved pipelines on labelled images."""

from __future__ import annotations

import argparse
import json
from typing import Any

from featx.cli.options import (
    add_patterns,
    add_running,
    add_separator,
    make_events,
    note_failures,
    running_parameters,
    split_names,
)
from featx.errors import InputError
from featx.fitting import Evaluation, FittedModel, PairedEvaluation, compare_pipelines, evaluate, open_model
from featx.page import report
from featx.writers import check_output

EXAMPLE = """\
  featx evaluate ants.featx photos/val
  featx evaluate price.featx prices.csv --json
  featx evaluate old.featx new.featx photos/val       compares both on the same images
--json prints one object: n, accuracy, balanced_accuracy, macro_f1, log_loss,
roc_auc, balance (the largest class, its share, the class with the lowest
recall), per_class, confusion (rows true, columns predicted, in the order of
per_class); or n, mae, rmse, r2, mape (a fraction). A metric without a value is
null. For two models: n, metric, difference (second minus first), low, high,
p_value, only_first, only_second, and each model's object as first and second.
Several labels per image: n, macro_average_precision, macro_f1, micro_f1,
subset_accuracy, log_loss, per_label. Several numbers: n, r2, per_target. With an
order of the classes also quadratic_kappa, mae_steps and within_one_step."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", nargs="+", metavar="MODEL", help="file of featx fit, or two to compare")
    parser.add_argument("source", metavar="SOURCE", help="a labelled source, as for featx fit")
    parser.add_argument(
        "--target",
        action="names",
        type=split_names,
        metavar="C[,C]",
        help="column of labels, or several (default: as at the fit); of folders of folders, the level: 1 or 2",
    )
    add_separator(parser)
    parser.add_argument("--report", metavar="FILE.html", help="write a page with mistakes and heat maps (featx report)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    parser.add_argument(
        "--path-column", metavar="C", help="column of the table that holds the paths (default: as at the fit)"
    )
    parser.add_argument("--text-column", metavar="C", help="column of texts (default: as at the fit)")
    add_patterns(parser)
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Evaluate, print."""
    if len(options.model) > 2:
        raise InputError(f"{len(options.model)} models: expected one, or two to compare")
    if options.report:
        if len(options.model) > 1:
            raise InputError("--report: is about one model; leave the other out")
        check_output(options.report, (".html",), [options.source])
    models = [open_model(path, backbone=options.backbone) for path in options.model]
    for model in models:
        model.extractor.set_params(**running_parameters(options))
    arguments: dict[str, Any] = {
        "path_column": options.path_column,
        **({"text_column": options.text_column} if options.text_column else {}),
        "target": options.target,
        "include": options.include,
        "exclude": options.exclude,
        "events": make_events(),
    }
    if len(models) == 1:
        _print(_evaluate(models[0], options, arguments), options.json)
    else:
        _print(compare_pipelines(models[0], models[1], options.source, **arguments), options.json)


def _evaluate(model: FittedModel, options: argparse.Namespace, arguments: dict[str, Any]) -> Evaluation:
    """Evaluate one model, and write the page of --report."""
    arguments["separator"] = options.separator
    if not options.report:
        return evaluate(model, options.source, **arguments)
    page = report(model, options.source, **arguments)
    page.save(options.report)
    assert page.evaluation is not None
    return page.evaluation


def _print(result: Evaluation | PairedEvaluation, as_json: bool) -> None:
    note_failures(result.failures, "left out", result.kind)
    print(json.dumps(result.to_dict(), indent=1, allow_nan=False) if as_json else result)
