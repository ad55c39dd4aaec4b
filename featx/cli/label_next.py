"""``featx label-next``: choose images to label next."""

from __future__ import annotations

import argparse

from featx.cli.options import add_running, make_events, note_failures, running_parameters
from featx.fitting import open_model
from featx.fitting.active_learning import label_next
from featx.reporting.contact_sheet import check_sheet
from featx.writers import check_names, check_output

EXAMPLE = """\
  featx label-next ants.featx unlabelled -n 50 -o to_label.csv --sheet sheet.png
Then fill in the column label, and:
  featx fit to_label.csv --continue ants.featx -o ants2.featx    once the column label is filled in
The file has the columns path, predicted, probability and label."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="file of featx fit")
    parser.add_argument("pool", nargs="+", metavar="POOL", help="images, folders, globs, archives or a dataset")
    parser.add_argument("-n", type=int, default=50, metavar="N", help="images to choose (default: 50)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.csv", help="file to write")
    parser.add_argument("--sheet", metavar="FILE.png", help="write a contact sheet of the images")
    parser.add_argument("--backbone", metavar="FILE", help="file of the backbone, if it is not found")
    add_running(parser)


def run(options: argparse.Namespace) -> None:
    """Choose, write and print."""
    check_output(options.output, (".csv",), options.pool)
    if options.sheet:
        check_sheet(options.sheet)
    model = open_model(options.model, backbone=options.backbone)
    model.extractor.set_params(**running_parameters(options))
    pool = options.pool[0] if len(options.pool) == 1 else options.pool
    found = label_next(model, pool, options.n, events=make_events())
    note_failures(found.failures, "left out")
    check_names(options.output, found.names)
    found.save(options.output)
    if options.sheet:
        found.draw(options.sheet)
    print(f"{options.output}: {found}")
