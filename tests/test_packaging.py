"""The wheel holds all that it needs: the code, the demo model, voices, pages and the plugin's entry point."""

import os
import shutil
import subprocess
import sys
import wave
import zipfile
from pathlib import Path

import vllm_cosyvoice
from vllm_cosyvoice.config import SAMPLE_RATE

ROOT = Path(__file__).parents[1]


def test_the_wheel_speaks(tmp_path: Path) -> None:
    """Unpacked beside the packages that it asks for, in another directory than the sources."""
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for package in ("vllm_cosyvoice", "server", "tests", "benchmarks", "training"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-c", "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"]
    built = subprocess.run(build, cwd=source, check=True, capture_output=True, text=True).stdout.split()[-1]
    assert built == f"vllm_cosyvoice-{vllm_cosyvoice.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(source / "dist" / built) as wheel:
        wheel.extractall(site)
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"vllm_cosyvoice", "server"}
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    where = "import vllm_cosyvoice, server; print(vllm_cosyvoice.__file__, server.__file__)"
    assert all(Path(file).is_relative_to(site) for file in run("-c", where).split())
    pages = [file.relative_to(ROOT) for file in (ROOT / "server/http/pages").glob("*.*")]
    assert [file for file in pages if not (site / file).exists()] == []
    assert "real-time factor" in run("-m", "vllm_cosyvoice", "Hello.", "-o", "hello.wav")
    with wave.open(str(elsewhere / "hello.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        assert file.getnframes() > 0
