"""Start the command line: ``featx``, or ``python -m featx``."""

import sys

__all__ = ["run"]


def run() -> int:
    """Run the command line; Ctrl-C during its imports ends it without a traceback."""
    try:
        from featx.cli import main

        return main()
    except KeyboardInterrupt:
        print("featx: interrupted before anything was done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
