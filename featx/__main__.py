"""Start the command line: ``featx``, or ``python -m featx``."""

import os
import sys
import threading
from contextlib import suppress

__all__ = ["run"]


def run() -> int:
    """Run the command line; Ctrl-C during its imports ends the process without a traceback."""
    try:
        from featx.cli import main

        code = main()
        _end_with_threads(code)
        return code
    except KeyboardInterrupt:
        print("featx: interrupted before anything was done", file=sys.stderr)
        return 130


def _end_with_threads(code: int) -> None:
    """End the process here if a thread is still inside a decoder, since the interpreter might crash during shutdown."""
    if any(thread.name.startswith(("featx-serve", "featx-decoder")) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(run())
