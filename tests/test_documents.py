"""docs/: both languages have the same frame, tables are those of the results, and links and commands work."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, make_sessions, module_run_as

from sessrec.cli import SessRecCLI
from sessrec.data.session_parallel import LaneGrid
from sessrec.errors import SessRecError

DOCS = ROOT / "docs"
NAMES = ("case_study", "executive_summary", "technical_report", "pipeline", "formulas")
LANGUAGES = ("en", "es")
BILINGUAL = [DOCS / language / f"{name}.md" for language in LANGUAGES for name in NAMES]
EVERY_FILE = sorted([*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *DOCS.rglob("*.md")])

TABLE = re.compile(r"<!-- table: .+? -->\n.*?<!-- end -->", flags=re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
MATH = re.compile(r"\$\$(.*?)\$\$", flags=re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", flags=re.MULTILINE)
INLINE_COMMAND = re.compile(r"`((?:python (?:-m sessrec\.|scripts/)|sessrec [a-z]+ )[^`]+)`")
INLINE_FILE = re.compile(r"`((?:sessrec|tests|scripts|configs|docs|notebooks)/[\w/.-]*)`")


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


# 1. The two languages


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_frame(name: str) -> None:
    """Headings, code, formulas, tables of results, pictures and links, in the same order."""
    frames = []
    for language in LANGUAGES:
        text = text_of(DOCS / language / f"{name}.md")
        bare = FENCE.sub("", text)
        frames.append(
            {
                "headings": [(level, re.findall(r"^[\d.]+", title)) for level, title in HEADING.findall(bare)],
                "code": FENCE.findall(text),
                "formulas": MATH.findall(bare),
                "tables": TABLE.findall(text),
                "links": Counter(link.partition("#")[0] for link in LINK.findall(bare)),
            }
        )
    assert frames[0] == frames[1]
    assert frames[0]["headings"].count(("#", [])) == 1


@pytest.mark.parametrize("file", BILINGUAL, ids=shown)
def test_documents_are_short_and_have_no_figures_of_their_own(file: Path) -> None:
    """What has three decimals is a result, and stands in a table that the report writes."""
    text = text_of(file)
    assert len(text.splitlines()) <= 150
    prose = re.sub(r"`[^`]*`", "", FENCE.sub("", TABLE.sub("", text)))
    assert re.findall(r"\d\.\d{3,}", prose) == []
    assert [line for line in MATH.sub("", prose).splitlines() if len(line) > 125 and not line.startswith("|")] == []
    assert re.findall(r"(?<![\w.:/])/(?:home|root|work|tmp|usr|mnt|Users)\b", text) == []


def test_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report finds nothing to change: docs/results.md, docs/audits.md and the tables in the documents."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    texts = importlib.import_module("report").texts_of(json.loads(text_of(DOCS / "results.json")), DOCS)
    assert sorted(texts) == [DOCS / "audits.md", DOCS / "results.md"]
    for file, text in texts.items():
        assert text == text_of(file)
    tables = [table for file in EVERY_FILE for table in TABLE.findall(text_of(file))]
    assert len(tables) == 5
    rows = [row.strip("|").split("|")[1:] for table in tables for row in table.splitlines() if row.startswith("|")]
    assert all(any(cell.strip() != "-" for cell in row) for row in rows)  # a model that is none


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lanes_of_the_table_are_those_of_the_schedule(language: str) -> None:
    """The table of the pipeline's five sessions, cell by cell."""
    sessions = ["abcd", "ef", "ghi", "jk", "lmn"]
    window = LaneGrid(make_sessions([[ord(item) for item in items] for items in sessions]), 3).window(0, 4)
    rows = []
    for step in range(4):
        live = window.live[step]
        inputs, targets = ((" ".join(map(chr, part[step][live].tolist()))) for part in (window.inputs, window.targets))
        begun = ", ".join(str(lane + 1) for lane in range(3) if window.starts[step, lane])
        rows.append(f"| {step + 1} | {inputs} | {targets} | {begun} |")
    assert "\n".join(rows) in text_of(DOCS / language / "pipeline.md")


# 2. Links and names of files


def anchors_of(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    anchors = set()
    for _, title in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        anchors.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return anchors


def test_anchors_by_hand() -> None:
    text = "# 7. Rangos y métricas\n## BPR-max: how?\n## `fit` and logQ\n## BPR-max: how?\n```\n# no heading\n```\n"
    assert anchors_of(text) == {"7-rangos-y-métricas", "bpr-max-how", "fit-and-logq", "bpr-max-how-1"}


@pytest.mark.parametrize("file", EVERY_FILE, ids=shown)
def test_links_and_names_lead_somewhere(file: Path) -> None:
    broken, text = [], FENCE.sub("", text_of(file))
    for link in LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors_of(text_of(target))):
            broken.append(link)
    if file.name != "CHANGELOG.md":  # what was there once
        broken += [name for name in INLINE_FILE.findall(text) if not (ROOT / name).exists()]
    assert broken == []


def test_the_index_leads_to_all_documents() -> None:
    links = {link.partition("#")[0] for link in LINK.findall(text_of(DOCS / "README.md"))}
    assert {shown(file).removeprefix("docs/") for file in DOCS.rglob("*.md") if file != DOCS / "README.md"} <= links


# 3. Commands


class ParsedError(Exception):
    """Stops a command where its words are parsed; its arguments are those that were left."""


def commands() -> list[str]:
    """Every command of every document and of the notebook's text, once, in their order.

    Those with words to be filled in are left out.
    """
    cells = json.loads(text_of(ROOT / "notebooks" / "01_end_to_end_walkthrough.ipynb"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    found: list[str] = []
    for text in [*map(text_of, sorted(DOCS.rglob("*.md"))), *texts]:
        for language, block in FENCE.findall(text):
            if language == "bash" or block.startswith("python "):
                found += [line for line in block.splitlines() if line and not line.startswith("#")]
        found += [" ".join(command.split()) for command in INLINE_COMMAND.findall(FENCE.sub("", text))]
    found = [line.removeprefix("exec ").removesuffix(" --help") for line in found]
    return [line for line in dict.fromkeys(found) if not re.search(r"\b[A-Z]{2,}\b", line)]


def check_package_command(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the words of a command of the package, to where its model and data would be built."""
    for word, value in zip(words, words[1:], strict=False):
        if word == "--config" and value.startswith("lightning_logs/"):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text("seed_everything: 1\n", encoding="utf-8")

    def stop(self: SessRecCLI) -> None:
        raise ParsedError

    monkeypatch.setattr(SessRecCLI, "before_instantiate_classes", stop)
    with pytest.raises(ParsedError):
        SessRecCLI(name, words)


def parsed_by_script(main: Callable[[list[str]], None], words: list[str]) -> list[str]:
    """Have a script parse its words and stop there; those that it hands on to a fit."""
    parse_known = argparse.ArgumentParser.parse_known_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise ParsedError(*parse_known(self, args, namespace)[1])

    def stop_at_unknown(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        if unknown := parse_known(self, args, namespace)[1]:
            self.error(f"unknown words {unknown}")
        raise ParsedError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patched.setattr(argparse.ArgumentParser, "parse_args", stop_at_unknown)
        with pytest.raises(ParsedError) as caught:
            main(words)
    return list(caught.value.args)


def check_command(command: str, folder: Path) -> None:
    """Parse a command's words as the command does."""
    program, *words = shlex.split(command)
    if program == "make":
        assert set(words) <= set(re.findall(r"^(\w+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE)), command
        return
    if program == "sessrec":
        program, words = "python", ["-m", f"sessrec.{words[0]}", *words[1:]]
    assert program == "python", command
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(sys, "argv", ["python"])  # Lightning warns of words beside those that it is given
        if words[0] == "-m":
            module, name = module_run_as(words[1]), words[1].removeprefix("sessrec.")
            words = words[1:]
            if name in ("fit", "validate", "test", "predict", "prepare"):
                check_package_command(name, words[1:], patched)
                return
        else:
            assert Path(words[0]).parent == Path("scripts"), command
            patched.syspath_prepend(str(ROOT / "scripts"))
            module = importlib.import_module(Path(words[0]).stem)
        left = parsed_by_script(module.main, words[1:])
        assert [word for word in words if word.startswith("configs/") and not Path(word).is_file()] == [], command
        if left:
            check_package_command("fit", left, patched)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def test_every_command_parses(folder: Path) -> None:
    found = commands()
    assert len(found) > 30
    for command in found:
        check_command(command, folder)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("make demos", AssertionError),
        ("python -m sessrec.fit --model.no_such_option 1", SystemExit),
        ("python -m sessrec.guess --data.path clicks.tsv.gz", ModuleNotFoundError),
        ("python scripts/audit.py no_such_audit lightning_logs/a", SystemExit),
        ("python scripts/compare.py --configs configs/no_such_file.yaml", AssertionError),
        ("sessrec audit no_such_audit lightning_logs/a", SystemExit),
        ("sessrec fit --config no_such_config", SessRecError),
        ("python scripts/compare.py --configs configs/markov.yaml --data.no_such_option 1", SystemExit),
    ],
)
def test_a_wrong_command_is_found(command: str, error: type[BaseException], folder: Path) -> None:
    with pytest.raises(error):
        check_command(command, folder)
