"""Speech tokens to mel, against the reference flow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tests.golden_cases import Case, errors, tensors
from tests.seeded_weights import seeded_state
from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, LOOKAHEAD_TOKENS, FlowConfig
from vllm_cosyvoice.flow import Flow, FlowRow
from vllm_cosyvoice.flow.torch.masks import attention_mask

ESTIMATOR_HEADS = {"small": 4, "full": 8}  # the one size that no tensor's shape tells
MAX_RELATIVE_ERROR = 1e-4


def flow_config(shapes: Mapping[str, Sequence[int]], estimator_heads: int) -> FlowConfig:
    """The sizes behind a manifest entry."""

    def count(prefix: str) -> int:
        return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in shapes if name.startswith(prefix))

    estimator = "decoder.estimator"
    vocab, width = shapes["input_embedding.weight"]
    inner, channels = shapes[f"{estimator}.down_blocks.0.1.0.attn1.to_q.weight"]
    return FlowConfig(
        token_vocab_size=vocab,
        width=width,
        heads=shapes["encoder.encoders.0.self_attn.pos_bias_u"][0],
        feed_forward=shapes["encoder.encoders.0.feed_forward.w_1.weight"][0],
        blocks=count("encoder.encoders."),
        up_blocks=count("encoder.up_encoders."),
        estimator_channels=channels,
        estimator_heads=estimator_heads,
        estimator_head_dim=inner // estimator_heads,
        estimator_blocks=count(f"{estimator}.down_blocks.0.1."),
        estimator_mid_stages=count(f"{estimator}.mid_blocks."),
    )


def cases(data: Path, salt: str) -> Iterator[Case]:
    """All sizes in `data`, with weights seeded by `salt`."""
    manifest = json.loads((data / "manifest.json").read_text())
    for size, heads in ESTIMATOR_HEADS.items():
        path = data / f"flow_{size}.npz"
        golden = tensors(path)
        shapes = manifest[f"flow.{size}"]
        flow = Flow.from_state(flow_config(shapes, heads), seeded_state(shapes, salt))
        with torch.inference_mode():
            for name, expected in golden.items():
                for actual in _computed(flow, name, golden):
                    absolute, relative = errors(actual.numpy(), expected.numpy())
                    yield Case(path.name, name, absolute, relative, relative <= MAX_RELATIVE_ERROR)


def _computed(flow: Flow, name: str, golden: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What the shipped code gives for the array `name`; nothing if that is an input."""
    case, _, kind = name.rpartition(".")
    if kind == "mel":
        yield flow([_row(flow, case, golden)])[0].T
    elif kind == "encoder_out":
        row = _row(flow, case, golden)
        lengths = torch.tensor([row.spoken])
        chunk = CHUNK_TOKENS if row.chunk_mask else row.spoken
        masks = [
            attention_mask(rate * lengths, torch.tensor([rate * chunk]), rate * row.spoken, torch.float32)
            for rate in (1, 2)
        ]
        tokens = torch.tensor([row.tokens])
        yield flow.encoder(tokens, torch.tensor([len(row.tokens)]), row.spoken, *masks)[0]
    elif kind in ("out_full", "out_chunk"):
        yield _velocity(flow, case, golden, chunked=kind == "out_chunk")
    elif name == "noise_head":
        yield flow.noise[: golden[name].shape[1]].T
    elif name == "noise_tail":
        yield flow.noise[-golden[name].shape[1] :].T


def _row(flow: Flow, case: str, golden: Mapping[str, Tensor]) -> FlowRow:
    streaming = case.startswith("streaming")
    return FlowRow(
        tokens=golden[f"{case}.prompt_token"].tolist() + golden[f"{case}.token"].tolist(),
        look_ahead=LOOKAHEAD_TOKENS if streaming else 0,
        prompt_mel=golden[f"{case}.prompt_feat"],
        speaker=flow.speaker(golden[f"{case}.embedding"]),
        chunk_mask=streaming,
    )


def _velocity(flow: Flow, case: str, golden: Mapping[str, Tensor], *, chunked: bool) -> Tensor:
    """One call of the estimator, each row with a time of its own; the half without the condition is not compared."""
    x, mu, cond = (golden[f"{case}.{name}"].transpose(1, 2) for name in ("x", "mu", "cond"))
    inside = golden[f"{case}.mask"]
    frames = x.shape[1]
    velocities = []
    for row in range(len(x)):
        one = slice(row, row + 1)
        length = inside[one].sum().long().expand(2)
        mask = attention_mask(length, torch.tensor([CHUNK_FRAMES if chunked else frames] * 2), frames, torch.float32)
        condition = flow.estimator.condition(mu[one], golden[f"{case}.spks"][one], cond[one])
        time = flow.estimator.times(golden[f"{case}.t"][one])[0]
        velocities.append(flow.estimator(x[one], condition, time, mask)[0].T)
    return torch.stack(velocities) * inside
