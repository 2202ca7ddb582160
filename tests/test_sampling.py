"""Repetition-aware sampling: the distribution a request's next token is drawn from."""

from collections.abc import Sequence

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from tests.logits_processor import added, probabilities, processor
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, FILL, HEAD_SIZE, UNUSED


def by_definition(logits: torch.Tensor, options: SamplingOptions, generated: Sequence[int]) -> torch.Tensor:
    """The two draws written out token by token in float64, [6564]."""
    logits = logits.double() / options.temperature
    logits[[UNUSED, FILL]] = -torch.inf
    q = logits.softmax(0)
    nucleus: dict[int, float] = {}
    for token in q.argsort(descending=True).tolist():
        if sum(nucleus.values()) >= options.top_p or len(nucleus) >= options.top_k:
            break
        nucleus[token] = q[token].item()
    drawn = torch.zeros(HEAD_SIZE, dtype=torch.float64)
    for token, weight in nucleus.items():
        chance = weight / sum(nucleus.values())
        if options.repetition_aware and token in generated[-10:]:
            others = logits.clone()
            others[token] = -torch.inf
            drawn += chance * others.softmax(0)
        else:
            drawn[token] += chance
    return drawn


def random_logits(rows: int, spread: float) -> torch.Tensor:
    return spread * torch.randn(rows, HEAD_SIZE, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0, 20.0])
def test_each_row_follows_its_own_options_and_history(spread: float) -> None:
    logits = random_logits(6, spread)
    likeliest = logits[:, :UNUSED].argsort(dim=-1, descending=True)[:, :12].tolist()
    options = [
        SamplingOptions(),
        SamplingOptions(top_p=1.0, top_k=100),
        SamplingOptions(temperature=0.7, top_k=5),
        SamplingOptions(repetition_aware=False),
        SamplingOptions(temperature=1.5, top_p=0.3),
        SamplingOptions(top_k=1),
    ]
    generated = [likeliest[0][:3], likeliest[1], likeliest[2][::2], likeliest[3], [], [*likeliest[5][:1], *range(10)]]
    result = probabilities(logits, options, generated)
    for row, (option, tokens) in enumerate(zip(options, generated, strict=True)):
        expected = by_definition(logits[row], option, tokens)
        torch.testing.assert_close(result[row].double(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("lead", [10.0, 17.0, 40.0, 200.0])
@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(top_p=1.0, top_k=50)])
def test_a_dominant_token_that_repeats_leaves_the_others_their_shares(lead: float, options: SamplingOptions) -> None:
    logits = random_logits(2, 1.0)
    logits[:, 7] = logits.amax(-1) + lead
    result = probabilities(logits, [options] * 2, [[7, 7, 7], [1]])
    torch.testing.assert_close(result[0].double(), by_definition(logits[0], options, [7, 7, 7]), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(result[1].double(), by_definition(logits[1], options, [1]), rtol=1e-3, atol=1e-7)


def test_control_tokens_other_than_the_end_are_never_drawn() -> None:
    logits = random_logits(1, 1.0)
    logits[:, [END_OF_SPEECH, UNUSED, FILL]] = 30.0
    [result] = probabilities(logits, [SamplingOptions()], [[]])
    assert result[[UNUSED, FILL]].tolist() == [0.0, 0.0]
    assert result[END_OF_SPEECH] > 0.99


def test_greedy_takes_the_likeliest_token_that_is_not_among_the_last_ten() -> None:
    logits = random_logits(3, 1.0)
    best = logits[:, :UNUSED].argsort(dim=-1, descending=True).tolist()
    greedy, plain = SamplingOptions(temperature=0), SamplingOptions(temperature=0, repetition_aware=False)
    generated = [best[0][:3], [*best[1][:1], *best[1][5:15]], best[2][:3]]
    result = probabilities(logits, [greedy, greedy, plain], generated).argmax(-1).tolist()
    assert result == [best[0][3], best[1][0], best[2][0]]


def test_greedy_and_sampled_requests_share_a_batch() -> None:
    logits = random_logits(2, 3.0)
    greedy, sampled = probabilities(logits, [SamplingOptions(temperature=0), SamplingOptions()], [[], []])
    assert greedy.argmax() == logits[0, :UNUSED].argmax()
    torch.testing.assert_close(sampled.double(), by_definition(logits[1], SamplingOptions(), []), rtol=1e-4, atol=1e-7)


def test_tokens_from_before_the_request_count_until_ten_have_been_generated() -> None:
    logits = random_logits(1, 3.0)
    best = int(logits[0, :UNUSED].argmax())
    generated: list[int] = []
    sampling = processor()
    request = added(0, SamplingOptions(temperature=0), generated, earlier=[*range(9), best])
    sampling.update_state(BatchUpdate(batch_size=1, removed=[], added=[request], moved=[]))
    for step in range(10):
        assert sampling.apply(logits.clone())[0].argmax() != best, f"after {step} tokens"
        generated.append(6000 + step)
        sampling.update_state(None)
    assert sampling.apply(logits.clone())[0].argmax() == best


def test_history_follows_requests_that_leave_and_move() -> None:
    logits = random_logits(1, 3.0).expand(3, -1)
    best = logits[0, :UNUSED].argsort(descending=True)[:4].tolist()
    greedy = SamplingOptions(temperature=0)
    sampling = processor()
    requests = [added(row, greedy, best[:row]) for row in range(3)]
    sampling.update_state(BatchUpdate(batch_size=3, removed=[], added=requests, moved=[]))
    assert sampling.apply(logits.clone()).argmax(-1).tolist() == best[:3]

    swap = BatchUpdate(batch_size=3, removed=[], added=[], moved=[(0, 2, MoveDirectionality.SWAP)])
    sampling.update_state(swap)
    assert sampling.apply(logits.clone()).argmax(-1).tolist() == [best[2], best[1], best[0]]

    leave = BatchUpdate(batch_size=2, removed=[0], added=[], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)])
    sampling.update_state(leave)
    assert sampling.apply(logits[:2].clone()).argmax(-1).tolist() == [best[0], best[1]]

    newcomer = added(1, greedy, best[:3])
    sampling.update_state(BatchUpdate(batch_size=2, removed=[], added=[newcomer], moved=[]))
    assert sampling.apply(logits[:2].clone()).argmax(-1).tolist() == [best[0], best[3]]


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("seed", SamplingOptions(seed=-1)),
        ("seed", SamplingOptions(seed=2**63)),
        ("temperature", SamplingOptions(temperature=-0.1)),
        ("temperature", SamplingOptions(temperature=float("nan"))),
        ("top_p", SamplingOptions(top_p=0.0)),
        ("top_p", SamplingOptions(top_p=1.1)),
        ("top_k", SamplingOptions(top_k=0)),
        ("min_tokens", SamplingOptions(min_tokens=-1)),
        ("max_tokens", SamplingOptions(max_tokens=0)),
        ("max_tokens", SamplingOptions(min_tokens=5, max_tokens=4)),
    ],
)
def test_bad_options_are_refused_by_name(field: str, options: SamplingOptions) -> None:
    with pytest.raises(ValueError, match=field):
        options.validate()


def test_vllm_refuses_bad_options_too() -> None:
    with pytest.raises(ValueError, match="top_p"):
        processor().validate_params(SamplingParams(extra_args={"sampling": {"top_p": 7.0}}))
