"""Where the program begins: before anything is imported that takes time, so that an interruption then is answered too."""

import sys


def main() -> None:
    """Entry point of `looper` and of `python -m looper`."""
    try:
        from looper.cli.main import main as door

        door()
    except (KeyboardInterrupt, RuntimeError) as error:
        # Python 3.11 wraps an interruption while a class is made, as modules do when they are imported, into an error of its own.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        from looper.errors import ExitCode, as_called, interrupted

        sys.stderr.write(f"looper: {as_called(interrupted())}\n")
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
