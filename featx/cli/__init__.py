"""The command line: one file a command, each with ``add(subparsers)`` and ``run(options)``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from featx._files import discard_unfinished
from featx._text import printable
from featx._version import __version__
from featx.cli import (
    backbones,
    cache,
    compare,
    dataset,
    demo,
    doctor,
    embed,
    evaluate,
    export,
    fit,
    neighbors,
    predict,
    serve,
    show,
)
from featx.errors import FeatxError

__all__ = ["main"]

COMMANDS = (
    *(demo, embed, compare, dataset, neighbors, fit, show, predict, evaluate, export, serve),
    *(backbones, cache, doctor),
)
_SECONDS_TO_END = 1.5
_INTERRUPTED = "featx: interrupted; nothing half-written was left"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
    for name in ("stdout", "stderr"):  # None when whoever started us closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    options = _build_parser().parse_args(argv)
    try:
        # a program that calls this with arguments of its own must not be ended by it
        with warnings.catch_warnings(), _ending_soon_on_interrupt() if argv is None else nullcontext():
            warnings.showwarning = _show_warning
            options.run(options)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
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
    parser.add_argument("--version", action="version", version=f"featx {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = command.add(commands)
        sub.set_defaults(run=command.run)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _one_line(error: BaseException | str) -> str:
    return printable(" ".join(str(error).split()))


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"featx: {category.__name__}: {_one_line(message)}", file=sys.stderr)


@contextmanager
def _ending_soon_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C end within two seconds, even inside compiled code that checks for nothing.

    Python's own handler waits for such code to return; the wakeup descriptor is
    written to at once, and a thread of its own can act on it.
    """
    if threading.current_thread() is not threading.main_thread() or os.name == "nt":  # there it takes a socket
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        signals = iter(lambda: os.read(reading, 1), b"")  # ends when the other side is closed
        interrupted = bytes([signal.SIGINT]) in signals
        os.close(reading)
        if interrupted:
            time.sleep(_SECONDS_TO_END)
            discard_unfinished()
            os.write(2, f"{_INTERRUPTED}\n".encode())
            os._exit(130)

    def end_watch() -> None:
        signal.set_wakeup_fd(before)
        os.close(writing)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    except KeyboardInterrupt:
        raise  # the watch stays on: the process is about to end
    except BaseException:
        end_watch()
        raise
    end_watch()
