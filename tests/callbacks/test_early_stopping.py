"""A fit that early stopping has ended stays ended, until it is given another rule (case 111)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from resuming import COMMON, GRU, RUN, fit_code, hashes, in_new_folder

COMMAND = [*COMMON, *GRU, "--ckpt_path", "auto", "--trainer.max_epochs", "30"]


def stopping(**options: object) -> list[str]:
    rule = {"monitor": "val/mrr@20", "mode": "max", "patience": 2} | options
    text = ", ".join(f"{name}: {value}" for name, value in rule.items())
    return ["--trainer.callbacks", f"[{{class_path: EarlyStopping, init_args: {{{text}}}}}]"]


def step_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that early stopping has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("ended"))
        run = in_new_folder(Path("folder").resolve(), n_sessions=60)
        assert fit_code([*COMMAND, *stopping()]) == 0
    return run


def test_it_has_nothing_to_do_at_any_later_start(
    ended: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ended.parents[1])
    before = hashes(ended)
    for more in ([], [], ["--trainer.max_epochs", "60"], ["--trainer.max_steps", "9999"]):
        capsys.readouterr()
        assert fit_code([*COMMAND, *stopping(), *more]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == (
            f"nothing to do: the checkpoint {RUN}/checkpoints/last.ckpt has been ended by early stopping at "
            f"step {step_of(ended)} (val/mrr@20 has not improved for 2 validations, patience 2); another patience or "
            "monitor in --trainer.callbacks continues it, more epochs do not"
        )
        assert hashes(ended) == before


@pytest.mark.parametrize(
    ("rule", "more_epochs"), [({"patience": 4}, 2), ({"monitor": "val/recall@1"}, 3), ({"patience": 1}, 1)]
)
def test_another_rule_continues_it(
    ended: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rule: dict[str, object],
    more_epochs: int,
) -> None:
    """The rule that is given is heeded, not that in the checkpoint."""
    shutil.copytree(ended.parents[1], tmp_path / "folder")
    monkeypatch.chdir(tmp_path / "folder")
    step = step_of(RUN)
    assert fit_code([*COMMAND, *stopping(**rule)]) == 0
    said = capsys.readouterr().out
    assert f"the fit resumes by other rules: it has been ended by early stopping at step {step} (" in said
    epochs = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] for run in (ended, RUN)]
    assert epochs[1] - epochs[0] >= more_epochs
    assert fit_code([*COMMAND, *stopping(**rule)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_without_patience_a_fit_that_was_not_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first validation had nothing to be worse than."""
    monkeypatch.chdir(tmp_path)
    run = in_new_folder(tmp_path / "folder", n_sessions=60)
    assert fit_code([*COMMAND, *stopping(patience=0), "--trainer.max_epochs", "1"]) == 0
    step = step_of(run)
    assert fit_code([*COMMAND, *stopping(patience=0), "--trainer.max_epochs", "2"]) == 0
    assert step_of(run) > step
