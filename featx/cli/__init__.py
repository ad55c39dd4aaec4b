"""The command line: one file a command, each with ``add(subparsers)`` and ``run(options)``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import featx
from featx.cli import backbones, demo, embed, evaluate, fit, predict
from featx.errors import FeatxError
from featx.files import discard_unfinished

__all__ = ["main"]

COMMANDS = (demo, embed, fit, predict, evaluate, backbones)
_SECONDS_TO_END = 1.5


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows an example)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes the process's own.

    Returns
    -------
    int
        0, 2 for a user's mistake, 1 for one of ours, 130 for Ctrl-C.
    """
    options = _build_parser().parse_args(argv)
    _end_soon_on_interrupt()
    warnings.showwarning = _show_warning
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("featx: interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = None  # the reader went away: nothing more to say
        return 1
    except (FeatxError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"featx: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"featx: unexpected {type(error).__name__}: {_one_line(error)} (--debug shows where)", file=sys.stderr)
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="featx",
        description="Pretrained convolutional networks as features for scikit-learn.",
        epilog="featx COMMAND --help shows an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"featx {featx.__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = command.add(commands)
        sub.set_defaults(run=command.run)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"featx: {category.__name__}: {' '.join(str(message).split())}", file=sys.stderr)


def _end_soon_on_interrupt() -> None:
    """Let Ctrl-C end within two seconds, even inside compiled code that checks for nothing."""

    def end() -> None:
        discard_unfinished()
        os._exit(130)

    def interrupt(*_: Any) -> NoReturn:
        timer = threading.Timer(_SECONDS_TO_END, end)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
