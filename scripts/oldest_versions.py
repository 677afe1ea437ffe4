"""Print the oldest versions that setup.cfg allows, as constraints for pip.

Example::

    python scripts/oldest_versions.py > constraints.txt
"""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"


def oldest_versions(text: str) -> list[str]:
    """A constraint for every package that setup.cfg requires.

    Args:
        text: The text of setup.cfg.
    """
    config = ConfigParser(interpolation=None)
    config.read_string(text)
    requirements = config["options"]["install_requires"].split("\n")
    return [re.sub(r"^([\w-]+)(\[\w+\])?>=([\w.]+).*$", r"\1==\3", line) for line in requirements if line]


if __name__ == "__main__":
    print("\n".join(oldest_versions(SETUP.read_text(encoding="utf-8"))))
