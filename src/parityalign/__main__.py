"""`python -m parityalign` is `parityalign`."""

from parityalign.cli import main

if __name__ == "__main__":
    main()
