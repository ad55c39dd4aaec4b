"""``featx samples``: list and write small sets of images that need no download."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from featx.cli.options import note
from featx.errors import InputError

EXAMPLE = """\
  featx samples
  featx samples fashion-mnist -o photos
  featx fit photos/train -o clothes.featx
  featx samples blur -o blur
  featx fit blur/train.csv --target blur -o blur.featx"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="set to write (default: list all)")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="new folder to write the set into")


def run(options: argparse.Namespace) -> None:
    """List the sets, or write one."""
    from featx.samples import list_samples, write_sample

    if options.name is None:
        if options.output is not None:
            raise InputError(f"output={str(options.output)!r}: add the name of a sample; featx samples lists them")
        for sample in list_samples():
            print(f"{sample.name}: {', '.join(sample.contents)}")
            print(textwrap.fill(sample.summary, 100, initial_indent="  ", subsequent_indent="  "))
            print(
                textwrap.fill(f"{sample.license}; {sample.source}.", 100, initial_indent="  ", subsequent_indent="  ")
            )
        note("featx samples NAME -o FOLDER writes a set")
        return
    if options.output is None:
        raise InputError(f"{options.name}: add -o FOLDER, the folder to write")
    folder = write_sample(options.name, options.output)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
