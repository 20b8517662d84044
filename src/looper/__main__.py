"""Where the program begins: before anything is imported that takes time, so that an interruption then is answered too."""

import sys


def main() -> None:
    """Entry point of `looper` and of `python -m looper`."""
    try:
        from looper.cli.main import main as door

        door()
    except KeyboardInterrupt:
        from looper.errors import ExitCode, as_called, interrupted

        sys.stderr.write(f"looper: {as_called(interrupted())}\n")
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
