"""The Dockerfile and the compose file, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import re
import shlex
from configparser import ConfigParser

import pytest
import yaml
from helpers import ROOT

from sessrec import serve

LINES = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
STEPS = [tuple(line.split(maxsplit=1)) for line in LINES if line and not line.startswith("#")]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def last(instruction: str) -> str:
    return [text for name, text in STEPS if name == instruction][-1]


def test_every_instruction_is_one() -> None:
    known = {"FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in STEPS} <= known
    assert STEPS[0][0] == "FROM"
    for text in (text for name, text in STEPS if name == "RUN"):
        shlex.split(text)  # its quotes are closed
    for text in (text for name, text in STEPS if name == "COPY"):
        assert all((ROOT / source).exists() for source in text.split()[:-1])


def test_the_server_is_not_root_and_has_a_health_check() -> None:
    order = [name for name, _ in STEPS]
    assert last("USER") not in ("root", "0")
    assert order.index("USER") > max(place for place, name in enumerate(order) if name == "RUN")
    assert "http://127.0.0.1:8000/readyz" in last("HEALTHCHECK")
    compile(json.loads(last("HEALTHCHECK").split("CMD ")[1])[2], "health", "exec")


@pytest.mark.parametrize("command", [json.loads(last("CMD")), COMPOSE["services"]["serve"]["command"]])
def test_the_commands_have_options_of_serve(command: list[str]) -> None:
    words = [*json.loads(last("ENTRYPOINT")), *command]
    assert words[:2] == ["sessrec", "serve"]
    options = serve._parser().parse_args(words[2:])
    assert (options.host, options.port, str(options.ckpt_path)) == ("0.0.0.0", 8000, "/model/best.ckpt")


def test_extras_are_those_of_the_package() -> None:
    extras = re.search(r"/source\[([\w,]+)\]", " ".join(text for _, text in STEPS))
    assert extras
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(extras[1].split(",")) <= set(setup["options.extras_require"])


def test_the_compose_file_publishes_to_this_machine_alone() -> None:
    services = COMPOSE["services"]
    assert [port.split(":")[0] for port in services["serve"]["ports"]] == ["127.0.0.1"]
    assert "ports" not in services["sessions"]
    assert services["serve"]["depends_on"] == {"sessions": {"condition": "service_healthy"}}
    assert "healthcheck" in services["sessions"]
    store = services["serve"]["command"][-1]
    assert store.removeprefix("redis://").partition(":")[0] in services
