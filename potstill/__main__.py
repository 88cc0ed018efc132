"""`python -m potstill`, for where the `potstill` script is not on the path."""

from potstill.cli.app import main

if __name__ == "__main__":
    main()
