"""Draw all pictures of a study, as ``sessrec figures`` does."""

from sessrec.study_figures import main

if __name__ == "__main__":
    main()
