"""A console that is not UTF-8 gets escapes, and files are UTF-8 whatever it is (case 113)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import ROOT

CODE = """
import sys
from sessrec import fit, predict, prepare, test
log = ["--data.path", "Łódź ☃.csv", "--data.cache_dir", "null"]
split = ["--data.test_ratio", "0.5", "--data.val_ratio", "0"]
run = ["--config", "lightning_logs/☃/config.yaml", "--ckpt_path", "last"]
prepare.main([*log, *split])
fit.main(["--model", "Popularity", "--trainer.accelerator", "cpu", "--trainer.logger.version", "☃", *log, *split])
test.main(run)
predict.main(run)
fit.main([*run[:2], *log, "--trainer.logger.version", "☃"])
"""


def test_what_a_console_cannot_show_is_escaped(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "cases" / "113" / "unicode.csv", tmp_path / "Łódź ☃.csv")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    out, error = done.stdout.decode("cp1252"), done.stderr.decode("cp1252")
    assert done.returncode == 2, error  # of the last fit, which is refused in one line
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("sessrec.fit: error: the run lightning_logs/\\u2603 exists: ")
    assert out.count("source                                    \\u0141ód\\u017a \\u2603.csv") >= 4
    assert "Łódź ☃.csv" in (tmp_path / "lightning_logs" / "☃" / "config.yaml").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in (tmp_path / "predictions.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["SessionId", "Rank", "ItemId", "Score"]
    assert {row[2] for row in rows[1:]} <= {"101", "102", "103"}
