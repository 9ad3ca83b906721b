"""The command line of sectigo-async."""

import signal
import sys
from contextlib import suppress

__all__ = ["main"]


def main() -> None:
    """Run `sectigo-async`; where its extra is not installed, say how to install it."""
    if sys.argv[1:] == ["--version"]:
        _show_version()
        return
    try:
        import rich
        import typer
    except ImportError:
        sys.stderr.write("The command line is an extra. Install it with: pip install 'sectigo-async[cli]'\n")
        sys.exit(1)
    del rich, typer
    _leave_no_core_file()
    # As if httpx's extra for a command line of its own were not installed: to load it takes half the time of a call.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    try:
        # Until a command has an event loop, which handles it from there on.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        from sectigo_async_cli.app import run_app

        run_app()
    except KeyboardInterrupt:
        # Before a command has begun; from there on `run` tells what was going on.
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _show_version() -> None:
    """Show the version, in less time than it takes to load the program."""
    from sectigo_async import __version__
    from sectigo_async_cli.streams import output_errors, print_text

    with output_errors():
        print_text(f"sectigo-async {__version__}")


def _leave_no_core_file() -> None:
    """Let a crash write no memory to the disk, where passwords would be found in it."""
    with suppress(ImportError, OSError, ValueError):  # Windows has none; some places forbid to change limits.
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
