"""What docs/ promise that can be checked without running it."""

import argparse
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from server.arguments import UNNEEDED, VARIABLES, _parser, parse

ROOT = Path(__file__).parents[1]
IMAGES = ["Dockerfile", "Dockerfile.cpu"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def anchors(document: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def row(action: argparse.Action) -> str:
    """A flag's row in docs/flags.md."""
    flag = action.dest
    meaning, _, default = (action.help or "").removesuffix(")").partition(" (default: ")
    if not default and action.default is not None and not isinstance(action.default, tuple):
        default = f"`{action.default}`"
    elif flag == "public_paths":
        default = ", ".join(f"`{path}`" for path in action.default)
    choices = f": {', '.join(f'`{choice}`' for choice in action.choices)}" if action.choices else ""
    return f"| `--{flag}` | `{VARIABLES[flag]}` | {default} | {meaning}{choices} |"


def test_the_table_of_flags_is_the_parsers() -> None:
    shown = [action for action in _parser()._actions if action.help is not argparse.SUPPRESS and action.dest != "help"]
    tables = (ROOT / "docs" / "flags.md").read_text().split("## LightTTS's other flags")
    assert re.findall(r"^\| `.*$", tables[0], re.MULTILINE) == [row(action) for action in shown]
    unneeded = [f"| `--{flag}` | {reason} |" for flag, reason in UNNEEDED.items()]
    assert re.findall(r"^\| `.*$", tables[1], re.MULTILINE) == unneeded


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def instructions(image: str) -> list[tuple[str, str]]:
    """Of a Dockerfile: each one's name, and what comes behind it."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / image).read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(line.split()[0], line.partition(" ")[2]) for line in text.splitlines() if line]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_from_what_is_there(image: str) -> None:
    sources = [source for name, rest in instructions(image) if name == "COPY" for source in rest.split()[:-1]]
    assert {"pyproject.toml", "server", "vllm_cosyvoice"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    assert {f"!{source}" for source in sources} <= set((ROOT / ".dockerignore").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = " ".join(rest for name, rest in instructions(image) if name == "RUN")
    extras = re.findall(r"--extra (\S+)", commands)
    assert extras and set(extras) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_the_server_as_a_normal_user(image: str) -> None:
    steps = dict(instructions(image))  # the last of each
    assert f"useradd --uid 1000 --create-home {steps['USER']}" in (ROOT / image).read_text()
    command = json.loads(steps["ENTRYPOINT"]) + json.loads(steps.get("CMD", "[]"))
    assert command[:3] == ["python", "-m", "server"]
    arguments, notes = parse(command[3:], {})
    assert not notes
    assert (arguments.host, str(arguments.port)) == ("0.0.0.0", steps["EXPOSE"])
    assert f":{arguments.port}/health" in steps["HEALTHCHECK"]


def test_the_compose_file_starts_the_server_as_it_wants_to_be_started() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    arguments, notes = parse(services["cosyvoice"]["command"], services["cosyvoice"]["environment"])
    assert arguments.model_dir == "FunAudioLLM/CosyVoice2-0.5B"
    assert not notes
    assert services["cosyvoice"]["volumes"] == [f"home:/home/{dict(instructions('Dockerfile'))['USER']}"]
    assert services["demo"]["build"]["dockerfile"] in IMAGES
