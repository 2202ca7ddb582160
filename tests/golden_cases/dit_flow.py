"""CosyVoice3's speech tokens to mel, against the reference flow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tests.golden_cases import Case, errors, tensors
from tests.seeded_weights import seeded_state
from vllm_cosyvoice.config import CHUNK_FRAMES, LOOKAHEAD_TOKENS, DiTFlowConfig
from vllm_cosyvoice.flow import DiTFlow, FlowRow
from vllm_cosyvoice.flow.euler import time_grid
from vllm_cosyvoice.flow.torch.dit import DiT
from vllm_cosyvoice.flow.torch.dit_loading import dit_flow_weights
from vllm_cosyvoice.flow.torch.masks import attention_mask
from vllm_cosyvoice.nn.layers import load

SIZES = ("small", "full")
MAX_ERROR = 1e-5  # absolute; what goes wrong in a flow may be as small as 1e-2


def dit_flow_config(shapes: Mapping[str, Sequence[int]]) -> DiTFlowConfig:
    """The sizes behind a manifest entry."""
    blocks = "decoder.estimator.transformer_blocks."
    head_dim = 2 * shapes["decoder.estimator.rotary_embed.inv_freq"][0]
    inner, width = shapes[f"{blocks}0.attn.to_q.weight"]
    return DiTFlowConfig(
        token_vocab_size=shapes["input_embedding.weight"][0],
        look_ahead_width=shapes["pre_lookahead_layer.conv1.bias"][0],
        width=width,
        blocks=1 + max(int(name.removeprefix(blocks).split(".")[0]) for name in shapes if name.startswith(blocks)),
        heads=inner // head_dim,
        head_dim=head_dim,
        feed_forward=shapes[f"{blocks}0.ff.ff.0.0.bias"][0],
    )


def cases(data: Path, salt: str) -> Iterator[Case]:
    """All sizes in `data`, with weights seeded by `salt`."""
    manifest = json.loads((data / "manifest.json").read_text())
    for size in SIZES:
        path = data / f"flow_{size}.npz"
        golden = tensors(path)
        shapes = manifest[f"flow.{size}"]
        config, state = dit_flow_config(shapes), seeded_state(shapes, salt)
        flow = DiTFlow.from_state(config, state)
        with torch.inference_mode():
            for name, actual, expected in (*_solved(flow, golden), *_estimated(config, state, golden)):
                absolute, relative = errors(actual.numpy(), expected.numpy())
                yield Case(path.name, name, absolute, relative, absolute <= MAX_ERROR)


def _solved(flow: DiTFlow, golden: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Whole solves and what they start from: name, computed and expected values."""
    for name, expected in golden.items():
        case, _, kind = name.rpartition(".")
        if case == "chunked" and kind == "mel":
            calls = golden["chunked.calls"].tolist()
            for call, end in zip(calls, golden["chunked.ends"].tolist(), strict=True):
                row = _row(flow, case, golden, heard=call, look_ahead=0 if call == calls[-1] else LOOKAHEAD_TOKENS)
                yield f"{name} to {end}", flow([row])[0].T, expected[:, : 2 * end]
        elif kind == "mel":
            yield name, flow([_row(flow, case, golden)])[0].T, expected
        elif kind == "mu" and case != "estimator":
            row = _row(flow, case, golden)
            tokens, counts = torch.tensor([row.tokens]), torch.tensor([len(row.tokens)])
            yield name, flow.mu(tokens, counts, row.spoken, None, None)[0].T, expected
        elif name == "noise_head":
            yield name, flow.noise[: expected.shape[1]].T, expected
        elif name == "noise_tail":
            yield name, flow.noise[-expected.shape[1] :].T, expected
        elif name == "time_grid":
            yield name, torch.tensor(time_grid()), expected


def _row(
    flow: DiTFlow, case: str, golden: Mapping[str, Tensor], *, heard: int | None = None, look_ahead: int | None = None
) -> FlowRow:
    """The row of `case`, with all its tokens or the first `heard`."""
    if look_ahead is None:
        look_ahead = LOOKAHEAD_TOKENS if case.startswith("streaming") else 0
    return FlowRow(
        tokens=golden[f"{case}.prompt_token"].tolist() + golden[f"{case}.token"][:heard].tolist(),
        look_ahead=look_ahead,
        prompt_mel=golden[f"{case}.prompt_feat"],
        speaker=flow.speaker(golden[f"{case}.embedding"]),
        chunk_mask=case.startswith(("streaming", "chunked")),
    )


def _estimated(
    config: DiTFlowConfig, state: Mapping[str, Tensor], golden: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """One call of the estimator and what it computes on the way; the half without the condition is not compared."""
    with torch.device("meta"):
        estimator = DiT(config)
    weights = {name.removeprefix("estimator."): tensor for name, tensor in dit_flow_weights(state).items()}
    load(estimator, {name: weights[name] for name in estimator.state_dict()}, "estimator")
    seen: dict[str, Tensor] = {}
    estimator.modulation.time_out.register_forward_hook(lambda _, inputs, output: seen.update(time=output))
    estimator.blocks[0].register_forward_hook(
        lambda _, inputs, output: seen.update(embedded=inputs[0][:1], block_0=output[:1])
    )
    inside = golden["estimator.mask"].bool()
    for mode, chunk in (("full", inside.shape[-1]), ("chunk", CHUNK_FRAMES)):
        if f"estimator.out_{mode}" not in golden:
            continue
        outs = [_velocity(estimator, golden, slice(row, row + 1), chunk) | seen for row in range(len(inside))]
        for name in outs[0]:
            golden_name = name if name in ("time", "embedded") else f"{name}_{mode}"
            if f"estimator.{golden_name}" in golden:
                actual, expected = torch.cat([out[name] for out in outs]), golden[f"estimator.{golden_name}"]
                if name in ("embedded", "block_0"):  # padded frames have any value
                    actual, expected = actual[inside[:, 0]], expected[inside[:, 0]]
                elif name == "out":
                    actual, expected = (each.transpose(1, 2)[inside[:, 0]] for each in (actual, expected))
                yield f"estimator.{golden_name}", actual, expected


def _velocity(estimator: DiT, golden: Mapping[str, Tensor], row: slice, chunk: int) -> dict[str, Tensor]:
    """The velocity of one row, which has a time of its own."""
    x, mu, cond = (golden[f"estimator.{name}"][row].transpose(1, 2) for name in ("x", "mu", "cond"))
    length = golden["estimator.mask"][row].sum().long().expand(2)
    mask = attention_mask(length, torch.full((2,), chunk), x.shape[1], torch.float32)
    condition = estimator.condition(mu, golden["estimator.spks"][row], cond)
    time = estimator.times(golden["estimator.t"][row])[0]
    return {"out": estimator(x, condition, time, mask)[:1].transpose(1, 2)}
