"""Pictures for the model card: training curves, and the mel of what the model says beside the teacher's.

python -m training.pictures --out DIR [--generated WAV --teacher WAV]
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vllm_cosyvoice.config import FRAME_RATE, SAMPLE_RATE
from vllm_cosyvoice.voice.audio import load_audio, resample
from vllm_cosyvoice.voice.features import prompt_mel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN = {"step", "seconds", "norm"}  # what a curve is not drawn of
COLUMNS = 4


def curves(out: Path) -> None:
    """`curves.png` from the stages' curves in `out`."""
    from matplotlib import pyplot

    files = sorted(out.glob("*.jsonl"))
    figure = pyplot.figure(figsize=(4 * COLUMNS, 3 * -(-len(files) // COLUMNS)))
    for place, file in enumerate(files, start=1):
        axis = figure.add_subplot(-(-len(files) // COLUMNS), COLUMNS, place)
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for name in sorted(lines[-1].keys() - HIDDEN):
            drawn = [(line["seconds"] / 60, line[name]) for line in lines if name in line]
            axis.plot(*zip(*drawn, strict=True), label=name)
        axis.set(title=file.stem, xlabel="minutes", yscale="log")
        axis.legend(fontsize="x-small")
    figure.tight_layout()
    _save(figure, out / "curves.png")


def mels(generated: Path, teacher: Path, out: Path) -> None:
    """`mels.png`, one above the other."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(9, 4.5), sharex=True)
    for axis, path, title in zip(axes, (generated, teacher), ("the model", "flite, its teacher"), strict=True):
        samples, rate = load_audio(path)
        mel = prompt_mel(resample(torch.from_numpy(samples), rate, SAMPLE_RATE)).T
        axis.imshow(mel, origin="lower", aspect="auto", extent=(0, mel.shape[1] / FRAME_RATE, 0, len(mel)))
        axis.set(title=title, ylabel="mel band")
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    _save(figure, out / "mels.png")


def _save(figure: "Figure", path: Path) -> None:
    """In few colours, since it is committed."""
    from PIL import Image

    figure.savefig(path, dpi=80)
    Image.open(path).convert("RGB").quantize(48).save(path, optimize=True)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m training.pictures", description="Pictures for the model card.")
    parser.add_argument("--out", type=Path, required=True, help="where the curves are and the pictures go")
    parser.add_argument("--generated", type=Path, help="what the model said")
    parser.add_argument("--teacher", type=Path, help="flite's, of the same sentence")
    arguments = parser.parse_args()
    curves(arguments.out)
    if arguments.generated and arguments.teacher:
        mels(arguments.generated, arguments.teacher, arguments.out)


if __name__ == "__main__":
    main()
