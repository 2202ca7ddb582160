"""What docs/ promise that can be checked without running it."""

import argparse
import re
from pathlib import Path

import pytest
import yaml

from server.arguments import UNNEEDED, VARIABLES, _parser, parse

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


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


def test_the_compose_file_starts_the_server_as_it_wants_to_be_started() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["cosyvoice"]
    arguments, notes = parse(service["command"], service["environment"])
    assert arguments.model_dir == "FunAudioLLM/CosyVoice2-0.5B"
    assert not notes
