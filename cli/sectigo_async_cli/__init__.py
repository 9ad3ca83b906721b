"""The command line of sectigo-async."""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run `sectigo-async`; where its extra is not installed, say how to install it."""
    try:
        import rich
        import typer
    except ImportError:
        sys.stderr.write("The command line is an extra. Install it with: pip install 'sectigo-async[cli]'\n")
        sys.exit(1)
    del rich, typer
    try:
        # Until a command has an event loop, which handles it from there on.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        from sectigo_async_cli.app import run_app

        run_app()
    except KeyboardInterrupt:
        # Before a command has begun; from there on `run` tells what was going on.
        sys.stderr.write("interrupted\n")
        sys.exit(130)
