"""``featx``, and ``python -m featx``."""

import sys

__all__ = ["run"]


def run() -> int:
    """Run the command line; Ctrl-C is also heard in the second that its imports take."""
    try:
        from featx.cli import main

        return main()
    except KeyboardInterrupt:
        print("featx: interrupted before anything was done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
