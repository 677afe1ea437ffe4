"""The configs that come with the package, found by name from any folder."""

from __future__ import annotations

from pathlib import Path, PurePath

from sessrec.errors import SessRecError
from sessrec.suggestions import alternatives, nearest, question

_PACKAGE = Path(__file__).resolve().parent
# an installed package has them inside, a checkout beside it
CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
DEFAULT_CONFIG = CONFIGS / "default.yaml"
"""Options of every command that neither a config nor a flag gives."""
SPACES = CONFIGS / "spaces"
"""Folder of the shipped search spaces."""


def shipped_configs() -> dict[str, Path]:
    """The files by name, such as ``gru4rec`` and ``data/retailrocket``."""
    files = sorted(file for file in CONFIGS.rglob("*.yaml") if file.parent != SPACES)
    return {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in files}


def find_config(name: str, option: str = "--config") -> Path:
    """The config file that a user names; a file of the user's own takes precedence over a shipped config.

    Args:
        name: A file, or a shipped config as ``gru4rec``, ``gru4rec.yaml`` or ``configs/gru4rec.yaml``; of one below
            ``configs/data`` the last part is enough, as in ``retailrocket``.
        option: The option that names it, for the error.

    Raises:
        SessRecError: If it is neither.

    Example:
        >>> find_config("configs/data/retailrocket.yaml").resolve() == find_config("retailrocket")
        True
    """
    file = Path(name).expanduser()
    if file.is_file():
        return file
    known = shipped_configs()
    short = PurePath(name).as_posix().removeprefix("configs/").removesuffix(".yaml")
    for choice in (short, f"data/{short}"):
        if choice in known:
            return known[choice]
    choices = {PurePath(config).name: PurePath(config).name for config in known}
    choices |= {near.stem: str(near) for near in file.parent.glob("*.yaml")}
    hint = question([choices[stem] for stem in nearest(file.stem, choices)])
    hint = hint or f"; name a file, or {alternatives(list(known))}"
    raise SessRecError(f"{option} {name}: no such file or shipped config{hint}")


def find_space(name: str) -> Path:
    """The search space that a user names; a file of the user's own takes precedence over a shipped one.

    Args:
        name: A file, or a shipped space as ``gru4rec``, ``spaces/gru4rec.yaml`` or ``configs/spaces/gru4rec.yaml``.

    Raises:
        SessRecError: If it is neither.
    """
    file = Path(name).expanduser()
    if file.is_file():
        return file
    known = {space.stem: space for space in sorted(SPACES.glob("*.yaml"))}
    if file.stem in known and file.parent.name in ("", "spaces"):
        return known[file.stem]
    hint = question(nearest(file.stem, known)) or f"; name a file, or {alternatives(list(known))}"
    raise SessRecError(f"--space {name}: no such file or shipped search space{hint}")
