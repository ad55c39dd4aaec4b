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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from featx._files import discard_unfinished
from featx._text import one_line
from featx._version import __version__
from featx.cli import options as shared
from featx.cli.parser import CommandParser, add_commands
from featx.errors import FeatxError

__all__ = ["COMMANDS", "main"]

#: Maps groups to commands, and commands to one line of help. The module of a command has its name.
COMMANDS = {
    "learn": {
        "fit": "fit a head on labelled images and save the pipeline",
        "tune": "adapt the network to labelled images, if that is better than a head alone",
        "evaluate": "measure a saved pipeline, or compare two, on labelled images",
        "predict": "apply a saved pipeline to images",
        "shift": "compare new images with those of a fit, or of another folder",
        "explain": "show the parts of each image that speak for its prediction",
        "label-next": "choose the images to label next",
        "report": "show scores, mistakes and reasons on a page",
        "compare": "find the best features for labelled images",
        "audit": "find faults of images, labels and splits",
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
        "samples": "list and write small sets of images to try featx on",
    },
}
_SECONDS_TO_END = 1.5
#: Exit status after an unexpected error, and that of SIGPIPE in a shell. A status of 1 would look like findings of an
#: audit.
_BUG, _BROKEN_PIPE = 3, 141
_ENDINGS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM was received; it is handled like Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes the arguments of the process.

    Returns
    -------
    int
        Exit status: 0; 1 for the findings of a command that has such a status (audit, shift); 2 for a mistake of
        the user or a problem that was found; 3 for a bug of featx; 130 for Ctrl-C, 141 if nobody reads the output,
        143 for SIGTERM.
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
        # the watch must not end a program that calls main with arguments of its own
        with (
            _without_noise() if watch and not options.debug else nullcontext(),
            _ending_soon_on_a_signal(_list_endings(options)) if watch else nullcontext(),
            warnings.catch_warnings(),
        ):
            warnings.showwarning = _show_warning
            code = options.run(options) or 0
            sys.stdout.flush()  # a closed reader or a full disk raises here, not in the interpreter
            return code
    except KeyboardInterrupt as error:
        number = signal.SIGTERM if isinstance(error, _TerminatedError) else signal.SIGINT
        print(_describe_ending(number), file=sys.stderr)
        return 128 + number
    except BrokenPipeError:
        sys.stdout = None  # the reader has closed the output
        return _BROKEN_PIPE
    except (FeatxError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"featx: error: {shared.translate(one_line(_describe(error)))}", file=sys.stderr)
        return 2
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"featx: unexpected {type(error).__name__}: {one_line(error)} (--debug shows where)", file=sys.stderr)
        return _BUG


def _build_parser() -> CommandParser:
    parser = CommandParser(
        prog="featx",
        description="Pretrained networks as features for scikit-learn.",
        epilog="featx COMMAND --help shows examples.",
    )
    parser.add_argument("--version", action="version", version=f"featx {__version__}")
    parser.set_defaults(debug=False, parser=parser)
    add_commands(parser, "featx.cli", COMMANDS, "COMMAND", required=True)
    return parser


def _describe(error: Exception) -> str:
    """Return the message of an error; a system error's message begins with the file."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    return str(error)


def _describe_ending(number: signal.Signals) -> str:
    clear = "\r\033[K" if sys.stderr.isatty() else ""  # a progress bar may stand on this line
    return f"{clear}featx: {_ENDINGS[number]}; nothing half-written was left"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"featx: {category.__name__}: {shared.translate(one_line(message))}", file=sys.stderr)


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep lines of C libraries out of standard error: they name no image, and a client of a server can cause many.

    libtiff writes them to the descriptor itself. The reason of each failure names the fault of the image.
    """
    stream: Any = sys.stderr
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):  # not a file
        descriptor = -1
    if descriptor != 2:
        yield
        return
    stream.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
    sys.stderr = open(kept, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        sys.stderr, opened = stream, sys.stderr
        opened.close()


def _list_endings(options: argparse.Namespace) -> Collection[int]:
    """Return the signals that end a command, without Ctrl-C for a command that goes on with its results so far."""
    return [signal.SIGTERM] if getattr(options, "keep_on_interrupt", False) else list(_ENDINGS)


@contextmanager
def _ending_soon_on_a_signal(numbers: Collection[int]) -> Iterator[None]:
    """Let some signals end the process within two seconds, even inside compiled code that checks for no signal.

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
        number = next((number for number in map(ord, signals) if number in numbers), None)
        os.close(reading)
        if number is not None:
            time.sleep(_SECONDS_TO_END)
            discard_unfinished()
            with suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), f"{_describe_ending(signal.Signals(number))}\n".encode())
            os._exit(128 + number)

    def terminate(*_: object) -> None:
        raise _TerminatedError

    def end_watch() -> None:
        signal.set_wakeup_fd(before)
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, handler)
        os.close(writing)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        raise  # the watch stays on: the process is about to end
    except BaseException:
        end_watch()
        raise
    end_watch()
