"""docs/: English and Spanish say the same, figures are those of the results, and links, commands and examples work."""

from __future__ import annotations

import argparse
import doctest
import importlib
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import ROOT, make_sessions
from scipy.stats import t as student
from torch import Tensor

from sessrec.cli import SessRecCLI
from sessrec.data.session_parallel import LaneGrid
from sessrec.evaluation.audits import sampled_rank
from sessrec.evaluation.bootstrap import PooledMean, difference, holm, pool_seeds, resampled_means
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.evaluation.rank_table import Ranks, gains
from sessrec.nn.layers import GRUCell, ResetBeforeGRUCell
from sessrec.nn.losses import Candidates, bpr_max, cross_entropy
from sessrec.nn.negatives import LogQ
from sessrec.nn.optim import AdagradMomentum

DOCS = ROOT / "docs"
NAMES = ("case_study", "executive_summary", "technical_report", "pipeline", "formulas")
LANGUAGES = ("en", "es")
BILINGUAL = [DOCS / language / f"{name}.md" for language in LANGUAGES for name in NAMES]
AT_THE_TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
EVERY_FILE = sorted([*AT_THE_TOP, *DOCS.rglob("*.md")])
PRINTED = ("results.md", "audits.md")  # a program lays these out
WRITTEN = [file for file in DOCS.rglob("*.md") if file.name not in PRINTED]

MARKED = re.compile(r"([-+]?[\d,]*\.?\d+)<!--([^<>\s]+)-->")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
MATH = re.compile(r"\$\$(.*?)\$\$", flags=re.DOTALL)
INLINE_MATH = re.compile(r"(?<!\$)\$(?!\$)([^$]+)\$(?!\$)")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", flags=re.MULTILINE)
INLINE_COMMAND = re.compile(r"`(python (?:-m sessrec\.|scripts/)[^`]+)`")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def pairs() -> list[tuple[str, str]]:
    """Text of each document in English and in Spanish."""
    return [(text_of(DOCS / "en" / f"{name}.md"), text_of(DOCS / "es" / f"{name}.md")) for name in NAMES]


def prose(text: str) -> str:
    """A document without code, formulas, comments and addresses of links."""
    text = MATH.sub("", FENCE.sub("", text))
    text = re.sub(r"<!--.*?-->|`[^`]*`", "", text, flags=re.DOTALL)
    return re.sub(r"\]\([^()\s]+\)", "]", INLINE_MATH.sub("", text))


# 1. The two languages


def test_both_languages_have_the_five_documents() -> None:
    for language in LANGUAGES:
        assert sorted(file.stem for file in (DOCS / language).iterdir()) == sorted(NAMES)


@pytest.mark.parametrize(("english", "spanish"), pairs(), ids=NAMES)
def test_both_languages_have_the_same_frame(english: str, spanish: str) -> None:
    """Headings, code, formulas, pictures, lists and tables, in the same order."""
    for text in (english, spanish):
        assert [len(level) for level, _ in HEADING.findall(FENCE.sub("", text))].count(1) == 1
    frames = []
    for text in (english, spanish):
        bare = FENCE.sub("", text)
        frames.append(
            {
                "heading levels": [len(level) for level, _ in HEADING.findall(bare)],
                "numbers of headings": [re.match(r"[\d.]*", title)[0] for _, title in HEADING.findall(bare)],  # type: ignore[index]
                "code": FENCE.findall(text),
                "formulas": MATH.findall(bare),
                "pictures": re.findall(r"^!\[[^\]]*\]\((.+)\)$", bare, flags=re.MULTILINE),
                "list items": len(re.findall(r"^- ", bare, flags=re.MULTILINE)),
                "columns of tables": [line.count("|") for line in bare.splitlines() if line.startswith("|")],
                "targets of links": Counter(link.partition("#")[0] for link in LINK.findall(bare)),
            }
        )
    assert frames[0] == frames[1]


@pytest.mark.parametrize(("english", "spanish"), pairs(), ids=NAMES)
def test_both_languages_have_the_same_numbers(english: str, spanish: str) -> None:
    assert MARKED.findall(english) == MARKED.findall(spanish)
    sections = [re.split(r"^#+ .+$", FENCE.sub("", text), flags=re.MULTILINE) for text in (english, spanish)]
    for one, other in zip(*sections, strict=True):
        assert Counter(NUMBER.findall(prose(one))) == Counter(NUMBER.findall(prose(other)))
        assert Counter(INLINE_MATH.findall(one)) == Counter(INLINE_MATH.findall(other))


# 2. Figures


@cache
def results() -> dict[str, Any]:
    file = DOCS / "results.json"
    if not file.is_file():
        pytest.skip("there is no docs/results.json yet: `python scripts/report.py` writes it")
    return json.loads(file.read_text(encoding="utf-8"))


def as_number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize("file", EVERY_FILE, ids=shown)
def test_marked_figures_are_those_of_the_results(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the decimals that are shown."""
    found = MARKED.findall(text_of(file))
    assert bool(found) or file not in BILINGUAL or file.stem in ("formulas", "pipeline")
    results()
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    number_at = importlib.import_module("report_texts").number_at
    for number, path in found:
        decimals = len(number.partition(".")[2])
        assert abs(as_number(number) - number_at(path, results())) <= 0.5000001 * 10**-decimals, f"{number} at {path}"


@pytest.mark.parametrize("file", BILINGUAL, ids=shown)
def test_no_figure_stands_alone(file: Path) -> None:
    """What has three decimals or more is a result, and says where it comes from; formulas have worked examples."""
    text = re.sub(MARKED, "", text_of(file)) if file.stem != "formulas" else ""
    assert re.findall(r"\d\.\d{3,}", prose(text)) == []


@pytest.mark.parametrize("file", BILINGUAL, ids=shown)
def test_speeds_are_those_of_the_benchmarks(file: Path) -> None:
    """Where a paragraph links to the benchmarks, its decimals stand there."""
    benchmarks = text_of(DOCS / "benchmarks.md")
    for paragraph in text_of(file).split("\n\n"):
        if "(../benchmarks.md)" in paragraph:
            numbers = re.findall(r"\d+\.\d+", prose(paragraph))
            assert numbers
            assert [number for number in numbers if number not in benchmarks] == []


# 3. Links, lines and names


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
def test_links_and_pictures_lead_somewhere(file: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", text_of(file))):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors_of(text_of(target))):
            broken.append(link)
    assert broken == []


def test_the_index_leads_to_all_documents() -> None:
    links = {link.partition("#")[0] for link in LINK.findall(text_of(DOCS / "README.md"))}
    assert {f"{language}/{name}.md" for language in LANGUAGES for name in NAMES} <= links
    assert {file.name for file in DOCS.glob("*.md") if file.name != "README.md"} <= links


@pytest.mark.parametrize("file", [DOCS / "README.md", *BILINGUAL], ids=shown)
def test_lines_are_short_and_paths_relative(file: Path) -> None:
    text = text_of(file)
    prose_lines = MATH.sub("", FENCE.sub("", text)).splitlines()
    assert [line for line in prose_lines if len(line) > 125 and not line.startswith("|")] == []
    assert re.findall(r"(?<![\w.:/])/(?:home|root|work|tmp|usr|mnt|Users)\b", text) == []


# 4. Commands


class ParsedError(Exception):
    """Stops a command where its words are parsed, and holds those that were left."""

    def __init__(self, words: list[str]) -> None:
        super().__init__(" ".join(words))
        self.words = words


def commands() -> list[str]:
    """Every command of every document and of the notebook's text, once; those with words to be filled in left out."""
    cells = json.loads(text_of(ROOT / "notebooks" / "01_end_to_end_walkthrough.ipynb"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    found = set()
    for text in [*map(text_of, DOCS.rglob("*.md")), *texts]:
        for language, block in FENCE.findall(text):
            if language == "bash" or block.startswith("python "):
                found |= {line for line in block.splitlines() if line and not line.startswith("#")}
        found |= {" ".join(command.split()) for command in INLINE_COMMAND.findall(FENCE.sub("", text))}
    found = {line.removeprefix("exec ").removesuffix(" --help") for line in found}
    return sorted(line for line in found if not re.search(r"\b[A-Z]{2,}\b", line))


def stop_at_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every parser of a script stop its command where the words are parsed."""
    parse_known = argparse.ArgumentParser.parse_known_args

    def parse_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        _, words = parse_known(self, args, namespace)
        if words:
            self.error(f"unknown words {words}")
        raise ParsedError([])

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise ParsedError(parse_known(self, args, namespace)[1])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)


def check_package_command(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the words of a command of the package, to where its model and data would be built."""
    for word, value in zip(words, words[1:], strict=False):
        if word == "--config" and value.startswith("lightning_logs/"):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text("seed_everything: 1\n", encoding="utf-8")

    def stop(self: SessRecCLI) -> None:
        raise ParsedError([])

    monkeypatch.setattr(SessRecCLI, "before_instantiate_classes", stop)
    with pytest.raises(ParsedError):
        SessRecCLI(name, words)


def check_command(command: str, folder: Path) -> None:
    """Parse a command's words as the command does."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = set(re.findall(r"^(\w+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
        assert set(words[1:]) <= targets, command
        return
    assert words[0] == "python", command
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(sys, "argv", words[:1])  # Lightning warns of words beside those that it is given
        if words[1] == "-m":
            package, _, name = words[2].partition(".")
            assert package == "sessrec", command
            importlib.import_module(words[2])
            check_package_command(name, words[3:], patched)
            return
        script = ROOT / words[1]
        assert script.parent == ROOT / "scripts", command
        patched.syspath_prepend(str(script.parent))
        main: Callable[[list[str]], None] = importlib.import_module(script.stem).main
        with pytest.MonkeyPatch.context() as stopped:
            stop_at_parsing(stopped)
            with pytest.raises(ParsedError) as caught:
                main(words[2:])
        assert [word for word in words if word.startswith("configs/") and not Path(word).is_file()] == [], command
        if caught.value.words:
            check_package_command("fit", caught.value.words, patched)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def test_every_command_parses(folder: Path) -> None:
    found = commands()
    assert len(found) > 40
    for command in found:
        check_command(command, folder)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("make demos", AssertionError),
        ("python -m sessrec.fit --model.no_such_option 1", SystemExit),
        ("python -m sessrec.test --config configs/no_such_file.yaml --ckpt_path best", SystemExit),
        ("python -m sessrec.guess --data.path clicks.tsv.gz", ModuleNotFoundError),
        ("python scripts/no_such_script.py", ModuleNotFoundError),
        ("python scripts/audit.py no_such_audit lightning_logs/a", SystemExit),
        ("python scripts/compare.py --configs configs/no_such_file.yaml", AssertionError),
        ("python scripts/compare.py --configs configs/markov.yaml --data.no_such_option 1", SystemExit),
        ("python scripts/figures.py --output pictures", SystemExit),
        ("ls", AssertionError),
    ],
)
def test_a_wrong_command_is_found(command: str, error: type[BaseException], folder: Path) -> None:
    with pytest.raises(error):
        check_command(command, folder)


# 5. Examples


@pytest.mark.parametrize("name", NAMES)
def test_worked_examples_run(name: str) -> None:
    """Those of both languages, which `test_both_languages_have_the_same_frame` holds to be equal."""
    blocks = [block for language, block in FENCE.findall(text_of(DOCS / "en" / f"{name}.md")) if language == "python"]
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, f"{name}.md", 0)
    found = doctest.DocTestRunner(verbose=False).run(test, out=sys.stderr.write)
    assert found.failed == 0
    assert found.attempted == len(test.examples)
    assert found.attempted > 0 or name not in ("pipeline", "formulas")


@pytest.mark.parametrize("language", LANGUAGES)
def test_values_of_worked_examples_are_computed(language: str) -> None:
    """Each number with four decimals in an example's words stands in the code below it."""
    text = text_of(DOCS / language / "formulas.md")
    examples = re.findall(r"^\*\*(?:Example|Ejemplo)\.\*\*(.*?)^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == len(re.findall(r"^## \d+\. ", text, flags=re.MULTILINE))
    for words, code in examples:
        computed = {float(number) for number in re.findall(r"\d+\.\d+", code)}
        quoted = re.findall(r"\d+\.\d{3,}", words)
        assert [number for number in quoted if float(number) not in computed] == [], words


def test_the_lanes_of_the_table_are_those_of_the_schedule() -> None:
    """The table of the pipeline's five sessions, cell by cell."""
    sessions = ["abcd", "ef", "ghi", "jk", "lmn"]
    window = LaneGrid(make_sessions([[ord(item) for item in items] for items in sessions]), 3).window(0, 4)
    rows = []
    for step in range(4):
        live = window.live[step]
        inputs, targets = ((" ".join(map(chr, part[step][live].tolist()))) for part in (window.inputs, window.targets))
        begun = ", ".join(str(lane + 1) for lane in range(3) if window.starts[step, lane])
        rows.append(f"| {step + 1} | {inputs} | {targets} | {begun} |")
    for language in LANGUAGES:
        assert "\n".join(rows) in text_of(DOCS / language / "pipeline.md")


# 6. Formulas: each one is looked up as it stands, written out again in float64, and held against autograd and package


def formulas() -> list[str]:
    return [" ".join(block.split()) for block in MATH.findall(text_of(DOCS / "en" / "formulas.md"))]


def stands(*blocks: str) -> None:
    """The document has these formulas; who changes one has to change what is computed here."""
    for block in blocks:
        assert block in formulas()


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def randomised(cell: torch.nn.Module) -> Any:
    with torch.no_grad():
        for number, weight in enumerate(cell.parameters()):
            weight.copy_(draw(*weight.shape, seed=10 + number))
    return cell.double()


def test_gru_in_the_form_of_torch() -> None:
    stands(
        r"r = \sigma(W_r x + b_r + U_r h + c_r)",
        r"z = \sigma(W_z x + b_z + U_z h + c_z)",
        r"n = \tanh(W_n x + b_n + r \odot m), \quad m = U_n h + c_n",
        r"h' = (1 - z) \odot n + z \odot h",
        r"\delta_n = \delta \odot (1 - z) \odot (1 - n^2)",
        r"\delta_z = \delta \odot (h - n) \odot z \odot (1 - z)",
        r"\delta_r = \delta_n \odot m \odot r \odot (1 - r)",
    )
    cell = randomised(GRUCell(4, 3))
    (w_r, w_z, w_n), (u_r, u_z, u_n) = cell.weight_ih.chunk(3), cell.weight_hh.chunk(3)
    (b_r, b_z, b_n), (c_r, c_z, c_n) = cell.bias_ih.chunk(3), cell.bias_hh.chunk(3)
    x, h, delta = draw(4, seed=1).requires_grad_(), draw(3, seed=2), draw(3, seed=3)
    r = torch.sigmoid(w_r @ x + b_r + u_r @ h + c_r)
    z = torch.sigmoid(w_z @ x + b_z + u_z @ h + c_z)
    m = u_n @ h + c_n
    n = torch.tanh(w_n @ x + b_n + r * m)
    new = (1 - z) * n + z * h
    found = torch.autograd.grad((new * delta).sum(), [x, cell.weight_ih, cell.weight_hh])
    with torch.no_grad():
        torch.testing.assert_close(cell.step(x[None], h[None])[0][0], new)
        d_n = delta * (1 - z) * (1 - n**2)
        d_z = delta * (h - n) * z * (1 - z)
        d_r = d_n * m * r * (1 - r)
        torch.testing.assert_close(found[0], w_r.T @ d_r + w_z.T @ d_z + w_n.T @ d_n)
        torch.testing.assert_close(found[1], torch.cat([torch.outer(d, x) for d in (d_r, d_z, d_n)]))
        torch.testing.assert_close(found[2], torch.cat([torch.outer(d, h) for d in (d_r, d_z, d_n * r)]))


def test_gru_of_the_one_hot_first_layer() -> None:
    stands(
        r"r = \sigma(a_r + U_r h), \quad z = \sigma(a_z + U_z h)",
        r"n = \tanh(a_n + U_n (r \odot h))",
        r"h' = (1 - z) \odot h + z \odot n",
    )
    cell = randomised(ResetBeforeGRUCell(3))
    terms, h = draw(9, seed=1), draw(3, seed=2)
    with torch.no_grad():
        a_n, a_r, a_z = (terms + cell.bias).chunk(3)
        (u_r, u_z), u_n = cell.weight_rz.T.chunk(2), cell.weight_n.T
        r, z = torch.sigmoid(a_r + u_r @ h), torch.sigmoid(a_z + u_z @ h)
        n = torch.tanh(a_n + u_n @ (r * h))
        torch.testing.assert_close(cell.step(terms[None], h[None])[0][0], (1 - z) * h + z * n)


def test_gradients_of_rows_and_states() -> None:
    stands(
        r"o_j = w_j^\top h + b_j",
        r"\frac{\partial L}{\partial w_j} = \frac 1 B \sum_i \frac{\partial L_i}{\partial o_j} h_i, \quad "
        r"\frac{\partial L}{\partial h_i} = \frac 1 B \sum_j \frac{\partial L_i}{\partial o_j} w_j",
    )
    rows, states, bias, n_lanes = draw(5, 3).requires_grad_(), draw(2, 3, seed=1).requires_grad_(), draw(5, seed=2), 4
    loss, of_logits = cross_entropy(
        (states @ rows.T + bias).detach(), Candidates.each_once(2, torch.ones(5, dtype=torch.float64))
    )
    logits = states @ rows.T + bias
    train_step = (logits.logsumexp(dim=1) - logits.diagonal()).sum() / n_lanes  # two of four lanes are alive
    of_rows, of_states = torch.autograd.grad(train_step, [rows, states])
    assert train_step.item() == pytest.approx(loss.sum().item() / n_lanes)
    torch.testing.assert_close(of_rows, of_logits.T @ states.detach() / n_lanes)
    torch.testing.assert_close(of_states, of_logits @ rows.detach() / n_lanes)


@pytest.mark.parametrize("copies", [False, True])
def test_gradient_of_cross_entropy(copies: bool) -> None:
    stands(
        r"p_j = \frac{e^{o_j}}{\sum_k e^{o_k}}, \quad L_i = -\log p_i = -o_i + \log \sum_k e^{o_k}",
        r"\frac{\partial L_i}{\partial o_j} = p_j - \mathbf 1[j = i]",
    )
    logits, weights = draw(1, 7), torch.ones(7, dtype=torch.float64)
    if copies:
        weights[2:] = torch.tensor([3.0, 1.0, 2.0, 5.0, 1.0])
    o = logits[0].clone().requires_grad_()
    drawn = torch.repeat_interleave(o, weights.long())  # every copy a candidate of its own
    loss = -o[0] + drawn.exp().sum().log()
    (expected,) = torch.autograd.grad(loss, o)
    share = weights * logits[0].exp() / (weights * logits[0].exp()).sum()
    gradient = share - torch.eye(7, dtype=torch.float64)[0]
    torch.testing.assert_close(gradient, expected)
    assert gradient.sum().item() == pytest.approx(0)
    ours = cross_entropy(logits.clone(), Candidates.each_once(1, weights))
    torch.testing.assert_close(ours[0][0], loss.detach())
    torch.testing.assert_close(ours[1][0], gradient)


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bpreg", [0.0, 1.0, 1.95])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradient_of_bpr_max(a: float, bpreg: float, seed: int) -> None:
    stands(
        r"r_j = o_j \ (o_j \gt 0), \quad r_j = a (e^{o_j} - 1) \ (o_j \le 0)",
        r"s_j = \frac{e^{r_j}}{\sum_{k \ne i} e^{r_k}}, \quad \sigma_j = \sigma(r_i - r_j)",
        r"G = \sum_{j \ne i} s_j \sigma_j, \quad P = \sum_{j \ne i} s_j r_j^2",
        r"L_i = -\log G + \lambda P",
        r"\frac{\partial L_i}{\partial r_j} = s_j (1 + \lambda (r_j^2 - P + 2 r_j)) - w_j \sigma_j",
        r"\frac{\partial L_i}{\partial r_i} = -\frac 1 G \sum_{j \ne i} s_j \sigma_j (1 - \sigma_j) "
        r"= \sum_{j \ne i} w_j \sigma_j - 1",
        r"\frac{\partial r_j}{\partial o_j} = 1 \ (o_j \gt 0), \quad "
        r"\frac{\partial r_j}{\partial o_j} = r_j + a \ (o_j \le 0)",
    )
    o = (2 * draw(9, seed=seed)).requires_grad_()
    assert (o[1:] > 0).any()
    assert (o[1:] <= 0).any()
    r = torch.where(o > 0, o, a * (torch.exp(o) - 1)) if a else o
    own, others = r[0], r[1:]
    s, sigma = others.exp() / others.exp().sum(), torch.sigmoid(own - others)
    gain, penalty = (s * sigma).sum(), (s * others**2).sum()
    loss = -torch.log(gain) + bpreg * penalty
    (expected,) = torch.autograd.grad(loss, o)
    with torch.no_grad():
        w = s * sigma / gain
        assert w.sum().item() == pytest.approx(1)
        of_others = s * (1 + bpreg * (others**2 - penalty + 2 * others)) - w * sigma
        of_own = (w * sigma).sum() - 1
        assert of_own.item() == pytest.approx(-(s * sigma * (1 - sigma)).sum().item() / gain.item())
        gradient = torch.cat([of_own[None], of_others])
        if a:
            gradient = torch.where(o > 0, gradient, gradient * (r + a))
        elif not bpreg:
            assert gradient.sum().item() == pytest.approx(0)
        torch.testing.assert_close(gradient, expected)
        ours = bpr_max(o[None].clone(), Candidates.each_once(1, torch.ones(9, dtype=torch.float64)), bpreg, a)
        torch.testing.assert_close(ours[0][0], loss)
        torch.testing.assert_close(ours[1][0], gradient)


def test_steps_of_the_derivation_of_bpr_max() -> None:
    """The derivatives of the parts, each against autograd."""
    stands(
        r"\frac{\partial s_k}{\partial r_j} = s_k (\mathbf 1[k = j] - s_j), \quad "
        r"\frac{\partial \sigma_j}{\partial r_j} = -\sigma_j (1 - \sigma_j), \quad "
        r"\frac{\partial \sigma_j}{\partial r_i} = \sigma_j (1 - \sigma_j)",
        r"\frac{\partial G}{\partial r_j} = s_j (\sigma_j - G) - s_j \sigma_j (1 - \sigma_j) = s_j (\sigma_j^2 - G)",
        r"-\frac 1 G \frac{\partial G}{\partial r_j} = s_j - w_j \sigma_j",
        r"\frac{\partial P}{\partial r_j} = \sum_{k \ne i} r_k^2 s_k (\mathbf 1[k = j] - s_j) + 2 s_j r_j "
        r"= s_j (r_j^2 - P + 2 r_j)",
        r"-\log G = -\log E_i - \log \sum_{j \ne i} \frac{s_j}{E_i + E_j}, \quad w_j \propto \frac{s_j}{E_i + E_j}",
    )
    r, own = draw(6), draw(1, seed=1)
    share_of, sigma_of = (lambda r: r.softmax(dim=0)), (lambda r, own: torch.sigmoid(own - r))
    s, sigma = share_of(r), sigma_of(r, own)
    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(share_of, r), s[:, None] * (torch.eye(6, dtype=torch.float64) - s[None]))
    of_r, of_own = jacobian(sigma_of, (r, own))
    torch.testing.assert_close(of_r, torch.diag(-sigma * (1 - sigma)))
    torch.testing.assert_close(of_own[:, 0], sigma * (1 - sigma))
    gain, penalty = (s * sigma).sum(), (s * r**2).sum()
    of_gain = jacobian(lambda r: (share_of(r) * sigma_of(r, own)).sum(), r)
    torch.testing.assert_close(of_gain, s * (sigma**2 - gain))
    torch.testing.assert_close(-of_gain / gain, s - s * sigma / gain * sigma)
    torch.testing.assert_close(jacobian(lambda r: (share_of(r) * r**2).sum(), r), s * (r**2 - penalty + 2 * r))
    e, e_own = torch.exp(r - r.max()), torch.exp(own - r.max())
    parts = s / (e_own + e)
    torch.testing.assert_close(-torch.log(gain), (-torch.log(e_own) - torch.log(parts.sum()))[0])
    torch.testing.assert_close(parts / parts.sum(), s * sigma / gain)


@pytest.mark.parametrize("mode", ["published", "textbook"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_logq(mode: Any, strength: float) -> None:
    stands(
        r"o_j \to o_j - \gamma \log q_j",
        r"q_j = c_j \ (j \le V), \quad q_j = c_j^\alpha \ (j \gt V)",
        r"q_j = \frac{V c_j}{\sum_k c_k} \ (j \le V), \quad "
        r"q_j = \frac{n c_j^\alpha}{\sum_k c_k^\alpha} \ (j \gt V)",
    )
    counts, alpha = torch.tensor([9.0, 4.0, 1.0, 30.0], dtype=torch.float64), 0.75
    targets, samples = torch.tensor([3, 0]), torch.tensor([1, 3, 2])
    if mode == "published":
        q = torch.cat([counts[targets], counts[samples] ** alpha])
    else:
        q = torch.cat([2 * counts[targets] / counts.sum(), 3 * counts[samples] ** alpha / (counts**alpha).sum()])
    found = LogQ(counts.long(), alpha, mode)(targets[None], samples[None])[0]
    torch.testing.assert_close(found.double(), q.log(), rtol=1e-6, atol=1e-6)
    logits = draw(2, 5)
    corrected = logits - strength * q.log()
    expected = corrected.logsumexp(dim=1) - corrected.diagonal()
    ours = cross_entropy(logits.clone(), Candidates.each_once(2, q**-strength))
    torch.testing.assert_close(ours[0], expected)
    torch.testing.assert_close(ours[1], corrected.softmax(dim=1) - torch.eye(2, 5, dtype=torch.float64))


def test_adagrad_with_momentum() -> None:
    stands(r"A \gets A + g^2, \quad v \gets \mu v - \eta \frac{g}{\sqrt A}, \quad \theta \gets \theta + v")
    weight, eta, mu = torch.nn.Parameter(draw(4)), 0.1, 0.4
    optimizer = AdagradMomentum([weight], lr=eta, momentum=mu)
    theta, accumulator, velocity = weight.detach().clone(), torch.full((4,), 1e-6, dtype=torch.float64), torch.zeros(4)
    for step in range(4):
        g = draw(4, seed=step + 1)
        weight.grad = g.clone()
        optimizer.step()
        accumulator = accumulator + g**2
        velocity = mu * velocity - eta * g / accumulator.sqrt()
        theta = theta + velocity
    torch.testing.assert_close(weight.detach(), theta)


def test_ranks_and_gains() -> None:
    stands(
        r"r_{\text{standard}} = 1 + A, \quad r_{\text{median}} = 1 + A + \frac E 2, "
        r"\quad r_{\text{conservative}} = 1 + A + E",
        r"g_{\text{Recall@}K}(r) = \mathbf 1[r \le K], \quad g_{\text{MRR@}K}(r) = \frac{\mathbf 1[r \le K]}{r}, \quad "
        r"g_{\text{NDCG@}K}(r) = \frac{\mathbf 1[r \le K]}{\log_2 (r + 1)}",
    )
    above, tied = torch.tensor([0, 3, 20]), torch.tensor([0, 1, 5])
    for rule, share in (("standard", 0.0), ("median", 0.5), ("conservative", 1.0)):
        assert rank_from_counts(above, tied, rule).tolist() == (1 + above + share * tied).tolist()  # type: ignore[arg-type]
    r = np.array([1.0, 2.5, 20.0, 20.5, np.inf])
    inside = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    for metric, gain in (("recall", r**0), ("mrr", 1 / r), ("ndcg", 1 / np.log2(r + 1))):
        np.testing.assert_allclose(gains(r, f"{metric}@20"), inside * gain)


@pytest.mark.parametrize("by_popularity", [False, True])
def test_expectation_of_sampled_metrics(by_popularity: bool) -> None:
    stands(
        r"P(X = x) = \frac{\binom{A}{x} \binom{M - A}{m - x}}{\binom{M}{m}}",
        r"\mathbb E[g(1 + X)] = \sum_x P(X = x) g(1 + x)",
    )
    n_others, above, m, odds, n_draws = 50, 20, 10, 0.3, 200_000
    columns = {"rank": above + 1, "ties": 0, "candidates": n_others + 1, "popular_odds": odds}
    ranks = Ranks(pa.table({name: [value] * n_draws for name, value in columns.items()}), "conservative")
    if by_popularity:
        chance = [comb(m, x) * odds**x * (1 - odds) ** (m - x) for x in range(m + 1)]
    else:
        chance = [comb(above, x) * comb(n_others - above, m - x) / comb(n_others, m) for x in range(m + 1)]
    assert sum(chance) == pytest.approx(1)
    sampled = sampled_rank(ranks, m, by_popularity)
    for metric in ("recall@3", "mrr@5", "ndcg@4"):
        gain = gains(np.arange(1.0, m + 2), metric)
        expected, spread = np.dot(chance, gain), np.sqrt(np.dot(chance, gain**2))
        assert gains(sampled, metric).mean() == pytest.approx(expected, abs=5 * spread / n_draws**0.5)
    if not by_popularity:
        assert (sampled <= above + 1).all()  # uniform sampling never lowers a figure


def test_spread_of_resampled_sessions() -> None:
    stands(
        r"\hat m = \frac{\sum_s G_s}{\sum_s n_s}",
        r"m^{\ast} = \frac{\sum_s k_s G_s}{\sum_s k_s n_s}",
        r"\mathrm{Var}(\hat m) \approx \frac{\sum_s (G_s - \hat m n_s)^2}{(\sum_s n_s)^2}",
    )
    generator = np.random.default_rng(0)
    positions = generator.integers(1, 9, size=1500)
    sums = generator.binomial(positions, generator.beta(1, 2, size=1500)).astype(float)
    mean = sums.sum() / positions.sum()
    means = resampled_means(sums[:, None], positions, n_resamples=3000)[:, 0]
    variance = ((sums - mean * positions) ** 2).sum() / positions.sum() ** 2
    assert means.std() == pytest.approx(variance**0.5, rel=0.05)
    drawn = np.random.default_rng(0).integers(1500, size=1500)
    times = np.bincount(drawn, minlength=1500)
    assert means[0] == pytest.approx((times * sums).sum() / (times * positions).sum())


def test_variance_of_pooled_seeds() -> None:
    stands(
        r"I^2 = \frac{1}{R - 1} \sum_q \mathrm{Var}(m^{\ast}_q - \bar m^{\ast})",
        r"\tilde m = \bar m^{\ast} + \sqrt{\frac{R}{R - 1} \cdot \frac{S^2 - I^2}{S^2}} (d^{\ast} - \bar m)",
        r"\mathrm{Var}(\tilde m) = \mathrm{Var}(\bar m^{\ast}) + \frac{S^2 - I^2}{R}, "
        r"\quad S^2 = \frac{1}{R - 1} \sum_q (m_q - \bar m)^2",
    )
    generator = np.random.default_rng(0)
    fits = np.array([0.30, 0.31, 0.35, 0.36])
    means = fits + 0.02 * generator.normal(size=(200_000, 1)) + 0.01 * generator.normal(size=(200_000, 4))
    apart = (means - means.mean(axis=1, keepdims=True)).var(axis=0).sum() / 3  # I^2
    pooled = pool_seeds(means, fits, n_sessions=100)
    assert pooled.value == pytest.approx(fits.mean())
    assert pooled.seed_variance == pytest.approx((fits.var(ddof=1) - apart) / 4, rel=0.01)
    expected = means.mean(axis=1).var() + (fits.var(ddof=1) - apart) / 4
    assert pooled.resampled.var() == pytest.approx(expected, rel=0.02)


def test_p_values_and_their_correction() -> None:
    stands(
        r"p = 2 P(T_{\nu} \gt |\hat d| / u)",
        r"\nu = \frac{(V_s + V_a + V_b)^2}{V_s^2/(S - 1) + V_a^2/(R_a - 1) + V_b^2/(R_b - 1)}",
        r"\tilde p_{(q)} = \max_{l \le q} \min(1, (k - l + 1) p_{(l)})",
    )
    changes = np.random.default_rng(0).normal(0.02, 0.01, size=1000)
    still = PooledMean(np.zeros(1000), 0.0, [0.0], seed_variance=0.0, n_sessions=30)
    found = difference(PooledMean(changes, 0.02, [0.02], seed_variance=0.0, n_sessions=30), still)
    assert found.p == pytest.approx(2 * student.sf(0.02 / changes.std(ddof=1), 29))
    by_seed = 0.4 * changes.var(ddof=1)
    found = difference(PooledMean(changes, 0.02, [0.01, 0.02, 0.03], by_seed, n_sessions=30), still)
    freedom = 1 / (0.6**2 / 29 + 0.4**2 / 2)
    assert found.p == pytest.approx(2 * student.sf(0.02 / changes.std(ddof=1), freedom))
    p_values = np.random.default_rng(1).random(7) ** 3
    ordered, k = np.sort(p_values), 7
    expected = [max(min(1.0, (k - place) * ordered[place]) for place in range(q + 1)) for q in range(k)]
    assert sorted(holm(p_values.tolist())) == pytest.approx(expected)
