import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import small_networks
from vllm_cosyvoice.flow import DiTFlow, Flow, FlowRow
from vllm_cosyvoice.flow.torch.masks import attention_mask
from vllm_cosyvoice.limits import MAX_TOKENS
from vllm_cosyvoice.nn.layers import FrameConv, frame_conv_weight
from vllm_cosyvoice.nn.padding import batches

AnyTorchFlow = Flow | DiTFlow


def open_small(kind: type[AnyTorchFlow], data_type: torch.dtype = torch.float32) -> AnyTorchFlow:
    config = small_networks.FLOW if kind is Flow else small_networks.DIT_FLOW
    return kind.from_state(config, small_networks.flow_state(config), data_type=data_type)


@pytest.fixture(scope="module", params=[Flow, DiTFlow])
def flow(request: pytest.FixtureRequest) -> AnyTorchFlow:
    return open_small(request.param)


def random_tokens(count: int, seed: int) -> list[int]:
    return torch.randint(6561, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def row(
    flow: AnyTorchFlow, prompt: int, speech: int, *, look_ahead: int = 0, chunk_mask: bool = True, seed: int = 0
) -> FlowRow:
    """`speech` counts the tokens behind the prompt, the look-ahead's included."""
    embedding = torch.randn(192, generator=torch.Generator().manual_seed(seed))
    tokens = random_tokens(prompt, seed) + random_tokens(speech, seed + 1)
    return FlowRow(tokens, look_ahead, small_networks.mel(2 * prompt, seed), flow.speaker(embedding), chunk_mask)


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max())


def test_rows_of_all_kinds_in_one_batch_give_what_each_gives_alone(flow: AnyTorchFlow) -> None:
    rows = [
        row(flow, 30, 40, chunk_mask=False),
        row(flow, 15, 38, look_ahead=3, seed=2),
        row(flow, 0, 60, seed=4),
        row(flow, 0, 1, chunk_mask=False, seed=6),
        row(flow, 47, 31, seed=8),
    ]
    for together, alone in zip(flow(rows), [flow([one])[0] for one in rows], strict=True):
        assert largest_difference(together, alone) < 1e-5


def test_rows_of_equal_length_with_full_attention_need_no_mask_and_give_the_same(flow: AnyTorchFlow) -> None:
    rows = [row(flow, 10, 30, chunk_mask=False, seed=seed) for seed in (0, 2)]
    shorter = row(flow, 10, 20, chunk_mask=False, seed=4)
    for unmasked, masked in zip(flow(rows), flow([*rows, shorter]), strict=False):
        assert largest_difference(unmasked, masked) < 1e-5


@pytest.mark.parametrize("prompt", [0, 35])
def test_mel_of_complete_chunks_stays_when_tokens_are_added(flow: AnyTorchFlow, prompt: int) -> None:
    whole = flow([row(flow, prompt, 90)])[0]
    for end in (50, 75, 100):
        cut = end - prompt
        if cut + 3 <= 90:
            early = flow([row(flow, prompt, cut + 3, look_ahead=3)])[0]
            assert largest_difference(early, whole[: 2 * cut]) < 1e-5


def test_the_look_ahead_is_heard(flow: AnyTorchFlow) -> None:
    whole = flow([row(flow, 0, 60)])[0]
    deaf = flow([row(flow, 0, 25)])[0]
    assert largest_difference(deaf, whole[:50]) > 1e-3


def test_look_ahead_tokens_reach_only_the_three_tokens_before_them_and_what_attends_to_those(
    flow: AnyTorchFlow,
) -> None:
    spoken = row(flow, 0, 53, look_ahead=3)
    other = FlowRow([*spoken.tokens[:50], 1, 2, 3], 3, spoken.prompt_mel, spoken.speaker, True)
    mel, changed = flow([spoken])[0], flow([other])[0]
    assert len(mel) == 100
    assert largest_difference(mel[:50], changed[:50]) < 1e-5  # the first chunk is complete
    assert largest_difference(mel[50:], changed[50:]) > 1e-3


def test_full_attention_sees_what_the_chunks_hide(flow: AnyTorchFlow) -> None:
    chunks, full = (flow([row(flow, 0, 60, chunk_mask=chunk_mask)])[0] for chunk_mask in (True, False))
    assert largest_difference(chunks[:50], full[:50]) > 1e-3


def test_speaker_is_heard_but_not_the_length_of_its_embedding(flow: AnyTorchFlow) -> None:
    embedding = torch.randn(192, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(flow.speaker(embedding), flow.speaker(7 * embedding), atol=1e-6)
    one = row(flow, 0, 10)
    other = FlowRow(one.tokens, 0, one.prompt_mel, flow.speaker(-embedding), True)
    assert largest_difference(flow([one])[0], flow([other])[0]) > 1e-2


def test_bfloat16_stays_near_float32(flow: AnyTorchFlow) -> None:
    coarse = open_small(type(flow), torch.bfloat16)
    expected, actual = flow([row(flow, 10, 30)])[0], coarse([row(coarse, 10, 30)])[0]
    assert actual.dtype == torch.float32
    assert (actual - expected).norm() < 0.02 * expected.norm()


def test_a_row_with_nothing_to_speak_or_too_much_is_refused(flow: AnyTorchFlow) -> None:
    speaker = flow.speaker(torch.ones(192))
    for count in (0, MAX_TOKENS + 1):
        with pytest.raises(ValueError, match=f"1 to {MAX_TOKENS} tokens"):
            flow([FlowRow([0] * count, 0, torch.zeros(0, 80), speaker, True)])


@pytest.mark.parametrize("name", ["encoder.embed.out.0.weight", "decoder.estimator.mid_blocks.0.1.0.attn1.to_k.weight"])
def test_a_missing_tensor_is_refused(name: str) -> None:
    state = small_networks.flow_state()
    del state[name]
    with pytest.raises(ValueError, match="flow's weights do not fit its configuration"):
        Flow.from_state(small_networks.FLOW, state)


@pytest.mark.parametrize(
    "name",
    ["input_embed.proj.weight", "transformer_blocks.0.attn.to_k.bias", "transformer_blocks.1.attn_norm.linear.bias"],
)
def test_a_missing_tensor_of_a_diffusion_transformer_is_refused(name: str) -> None:
    state = small_networks.flow_state(small_networks.DIT_FLOW)
    del state[f"decoder.estimator.{name}"]
    with pytest.raises(ValueError, match="flow's weights do not fit its configuration"):
        DiTFlow.from_state(small_networks.DIT_FLOW, state)


def test_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Flow.from_state(small_networks.FLOW, small_networks.flow_state() | {"surprise": torch.zeros(1)})


def test_a_tensor_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="size mismatch for encoder_proj"):
        Flow.from_state(small_networks.FLOW, small_networks.flow_state() | {"encoder_proj.weight": torch.zeros(80, 32)})


def test_attention_mask_shows_own_chunk_and_all_before_as_far_as_the_row_goes() -> None:
    mask = attention_mask(torch.tensor([5, 3]), torch.tensor([2, 6]), 6, torch.float32)
    visible = (mask[:, 0] == 0).int().tolist()
    assert visible[0] == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0],
    ]
    assert visible[1] == [[1, 1, 1, 0, 0, 0]] * 6


@pytest.mark.parametrize(("left", "right"), [(2, 0), (0, 3), (1, 1)])
def test_frame_conv_is_a_convolution(left: int, right: int) -> None:
    kernel = left + right + 1
    conv = FrameConv(5, 7, kernel, left=left, right=right)
    weight, x = torch.randn(7, 5, kernel), torch.randn(2, 11, 5)
    conv.weight = torch.nn.Parameter(frame_conv_weight(weight))
    expected = F.conv1d(F.pad(x.transpose(1, 2), (left, right)), weight, conv.bias).transpose(1, 2)
    assert torch.allclose(conv(x), expected, atol=1e-5)


def test_batches_put_every_row_in_one_group_and_bound_padding_and_size() -> None:
    lengths = [100, 900, 460, 120, 60, 55, 1000, 49]
    groups = batches(lengths, 2000)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[index] for index in group)
        assert all(2 * lengths[index] >= longest for index in group)
        assert len(group) == 1 or len(group) * longest <= 2000
    assert groups[0] == [6, 1]
    assert batches([], 10) == []
    assert batches([50, 50], 10) == [[0], [1]]
