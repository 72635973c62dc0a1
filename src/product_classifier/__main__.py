"""Runs the command line: `python -m product_classifier --help`."""

from product_classifier.cli import main

if __name__ == "__main__":
    main()
