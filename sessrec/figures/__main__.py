"""Draw all pictures of a study: ``python -m sessrec.figures``."""

from sessrec.study_figures import main

if __name__ == "__main__":
    main()
