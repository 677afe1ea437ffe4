"""Compare tested models, as ``sessrec compare`` does."""

from sessrec.compare import main

if __name__ == "__main__":
    main()
