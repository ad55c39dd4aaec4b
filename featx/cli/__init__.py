"""The command line: one file per command, with ``add(parser)`` and ``run(options)``, imported when it is called."""

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
from typing import Any

from featx._files import discard_unfinished
from featx._text import one_line
from featx._version import __version__
from featx.cli import options as shared
from featx.cli.parser import CommandParser, add_commands
from featx.errors import FeatxError

__all__ = ["COMMANDS", "main"]

#: group -> command -> one line of help. The module of a command has its name.
COMMANDS = {
    "learn": {
        "fit": "fit a head on labelled images and save the pipeline",
        "evaluate": "measure a saved pipeline, or compare two, on labelled images",
        "predict": "apply a saved pipeline to images",
        "compare": "find the features that suit labelled images best",
    },
    "explore": {
        "embed": "compute the features of images",
        "neighbors": "find similar images in a dataset",
        "dataset": "inspect, check and merge datasets",
    },
    "ship": {
        "export": "write a saved pipeline as one ONNX file",
        "serve": "serve a saved pipeline over HTTP",
        "show": "print the model card of a saved pipeline",
    },
    "look after": {
        "backbones": "list, make and check backbones",
        "cache": "show or prune the features that are kept on disk",
        "doctor": "find problems of this installation",
        "demo": "fit and test a classifier on images that come with featx",
    },
}
_SECONDS_TO_END = 1.5
_INTERRUPTED = "featx: interrupted; nothing half-written was left"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the process.

    Returns
    -------
    int
        Exit status: 0, 2 for a mistake of the user or a problem that was found, 1 for a bug of
        featx, 130 for Ctrl-C.
    """
    for name in ("stdout", "stderr"):  # None if the parent process closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream: Any = getattr(sys, name)
        if getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is escaped
    parser = _build_parser()
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments:
        parser.print_help()
        return 0
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.error(options.parser.describe_unknown(unknown))
    shared.set_parser(options.parser)
    return _run(options, watch=argv is None)


def _run(options: argparse.Namespace, watch: bool) -> int:
    try:
        # a program that calls main with its own arguments must not be ended by the watch
        with warnings.catch_warnings(), _ending_soon_on_interrupt() if watch else nullcontext():
            warnings.showwarning = _show_warning
            return options.run(options) or 0
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = None  # nobody reads the output any more
        return 1
    except (FeatxError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"featx: error: {shared.translate(one_line(error))}", file=sys.stderr)
        return 2
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"featx: unexpected {type(error).__name__}: {one_line(error)} (--debug shows where)", file=sys.stderr)
        return 1


def _build_parser() -> CommandParser:
    parser = CommandParser(
        prog="featx",
        description="Pretrained convolutional networks as features for scikit-learn.",
        epilog="featx COMMAND --help shows examples.",
    )
    parser.add_argument("--version", action="version", version=f"featx {__version__}")
    parser.set_defaults(debug=False, parser=parser)
    add_commands(parser, "featx.cli", COMMANDS, "COMMAND", required=True)
    return parser


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"featx: {category.__name__}: {shared.translate(one_line(message))}", file=sys.stderr)


@contextmanager
def _ending_soon_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process within two seconds, even inside compiled code that checks for no signal.

    Python's handler waits for such code to return. The wakeup descriptor is written to at once,
    and a thread that reads it can end the process.
    """
    if threading.current_thread() is not threading.main_thread() or os.name == "nt":  # Windows needs a socket
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        signals = iter(lambda: os.read(reading, 1), b"")  # ends when the other end is closed
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
