"""python -m nodestill, and the entry point of the command."""

from nodestill.cli import main

if __name__ == "__main__":
    main()
