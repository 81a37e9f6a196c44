"""python -m nodestill, and the entry point of the command."""

import sys


def main() -> None:
    """Run the command; interrupted while it is still loading it ends as quietly as later."""
    try:
        from nodestill.cli import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
