"""One training loop for all networks: so many minutes, resumed from a file, curves as JSON lines."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

SAVE_EVERY = 45.0  # seconds
REPORT_EVERY = 5.0  # seconds
WARM_UP = 0.03  # of the time
CLIP = 1.0

Loss = Callable[[float], tuple[Tensor, Mapping[str, float | Tensor]]]


def fit(
    name: str, out: Path, parameters: Mapping[str, nn.Parameter], loss: Loss, *, minutes: float, rate: float
) -> None:
    """Train `parameters` in place for `minutes` in all, earlier calls' included.

    The learning rate rises to `rate` and falls to nothing over that time. `loss` is given how much of it has gone by,
    0 … 1, and returns what to minimise and what to report. State is in `name`.pt, the curve in `name`.jsonl.
    """
    path = out / f"{name}.pt"
    device = next(iter(parameters.values())).device
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    step, earlier = 0, 0.0
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        copy_into(parameters, saved["parameters"])
        step, earlier = saved["step"], saved["seconds"]
        if "optimizer" in saved:
            optimizer.load_state_dict(saved["optimizer"])
    start = saved_at = reported_at = time.monotonic()
    sums: dict[str, float | Tensor] = {}
    summed = 0
    while (seconds := earlier + time.monotonic() - start) < 60 * minutes:
        progress = seconds / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, progress / WARM_UP, step / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        value, report = loss(progress)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        if torch.isfinite(norm):
            optimizer.step()
        step, summed = step + 1, summed + 1
        for key, number in {"loss": value.detach(), "norm": norm, **report}.items():
            sums[key] = sums.get(key, 0.0) + number
        if time.monotonic() - reported_at > REPORT_EVERY:
            means = {key: round(float(number) / summed, 4) for key, number in sums.items()}
            line = {"step": step, "seconds": round(seconds, 1), **means}
            print(name, line, flush=True)
            with (out / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            sums, summed, reported_at = {}, 0, time.monotonic()
        if time.monotonic() - saved_at > SAVE_EVERY:
            saved_at = time.monotonic()
            _save(path, parameters, optimizer, step, seconds)
    _save(path, parameters, optimizer, step, seconds)


def begin(out: Path, name: str, parameters: Mapping[str, Tensor], minutes: float) -> None:
    """Leave `parameters` for `fit` to go on from, as if they had been trained for `minutes`."""
    state = {"parameters": {key: tensor.detach() for key, tensor in parameters.items()}, "step": 0}
    save_whole(state | {"seconds": 60 * minutes}, out / f"{name}.pt")


def copy_into(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Give `parameters` the `values` of the same names."""
    if parameters.keys() != values.keys():
        raise ValueError(f"the saved weights are another network's: {sorted(parameters.keys() ^ values.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def trained(out: Path, name: str) -> dict[str, Tensor]:
    """The weights of a stage that has run.

    Raises:
        FileNotFoundError: it has not.
    """
    path = out / f"{name}.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run --stage {name} first")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["parameters"]
    return state


def save_whole(content: object, path: Path) -> None:
    """Save for `torch.load`, whole or not at all: a call may be stopped at any time, and others look what is there."""
    made = path.with_suffix(".part")
    torch.save(content, made)
    made.replace(path)


def _save(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    save_whole(
        {
            "parameters": {name: parameter.detach() for name, parameter in parameters.items()},
            "optimizer": optimizer.state_dict(),
            "step": step,
            "seconds": seconds,
        },
        path,
    )
