"""Write synthetic click sessions to a TSV file, as ``sessrec synth`` does."""

import sys
from pathlib import Path

# the command also works where the package is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sessrec.synth import main  # noqa: E402

if __name__ == "__main__":
    main()
