"""The command ``gatelens``, as the package brings it."""

import sys

from . import _core


def main() -> None:
    """Run the command with the words that the process was started with."""
    sys.exit(_core.command(sys.argv[1:]))


if __name__ == "__main__":
    main()
