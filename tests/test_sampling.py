"""Repetition-aware sampling: the distribution a request's next token is drawn from."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from tests.golden_cases.ras import chi_square_p
from tests.logits_processor import ROWS, added, by_definition, counts, next_tokens, processor, tokens
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.limits import MOST_SPEECH
from vllm_cosyvoice.llm.repetition_aware_sampling import extra_args
from vllm_cosyvoice.llm.token_draw import WORDS, philox
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, FILL, HEAD_SIZE, SPEECH_TOKENS, UNUSED


def random_logits(rows: int, spread: float) -> torch.Tensor:
    return spread * torch.randn(rows, HEAD_SIZE, generator=torch.Generator().manual_seed(rows))


def assert_follows(logits: torch.Tensor, options: SamplingOptions, generated: Sequence[int], draws: int = 500) -> None:
    expected = by_definition(logits, options, generated).numpy() * draws
    assert chi_square_p(counts(logits, options, generated, draws), expected) > 1e-3


@pytest.mark.parametrize("spread", [0.5, 8.0])
@pytest.mark.parametrize(
    ("options", "repeats"),
    [
        (SamplingOptions(), slice(3)),
        (SamplingOptions(), slice(0)),
        (SamplingOptions(top_p=1.0, top_k=100), slice(12)),
        (SamplingOptions(top_p=0.95, top_k=2000), slice(0)),
        (SamplingOptions(temperature=0.7, top_k=5), slice(0, 12, 2)),
        (SamplingOptions(repetition_aware=False), slice(12)),
        (SamplingOptions(temperature=1.5, top_p=0.3), slice(1)),
        (SamplingOptions(top_k=1), slice(2)),
    ],
)
def test_draws_follow_options_and_history(spread: float, options: SamplingOptions, repeats: slice) -> None:
    [logits] = random_logits(1, spread)
    likeliest = logits[:UNUSED].argsort(descending=True)[:12].tolist()
    assert_follows(logits, options, likeliest[repeats])


@pytest.mark.parametrize("lead", [10.0, 17.0, 40.0, 200.0])
@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(top_p=1.0, top_k=50)])
def test_a_dominant_token_that_repeats_leaves_the_others_their_shares(lead: float, options: SamplingOptions) -> None:
    [logits] = random_logits(1, 3.0)
    logits[7] = logits.max() + lead
    assert_follows(logits, options, [7, 7, 7])
    assert_follows(logits, options, [1])


def test_control_tokens_other_than_the_end_are_never_drawn() -> None:
    [logits] = random_logits(1, 1.0)
    logits[[END_OF_SPEECH, UNUSED, FILL]] = 30.0
    assert counts(logits, SamplingOptions(), [], 100)[END_OF_SPEECH] == 100
    assert counts(logits, SamplingOptions(), [END_OF_SPEECH], 500)[[END_OF_SPEECH, UNUSED, FILL]].sum() == 0
    assert next_tokens(logits[None], [SamplingOptions(temperature=0, seed=0)], [[]]) == [END_OF_SPEECH]


def test_a_token_that_vllm_has_ruled_out_is_not_drawn() -> None:
    """The end of speech, below the minimum."""
    [logits] = random_logits(1, 0.1)
    logits[END_OF_SPEECH] = -torch.inf
    everything = SamplingOptions(top_p=1.0, top_k=SPEECH_TOKENS)
    assert counts(logits, everything, [], 500)[END_OF_SPEECH] == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_speech_does_not_end_before_the_minimum(temperature: float) -> None:
    logits = random_logits(1, 1.0)
    logits[:, END_OF_SPEECH] = 60.0
    generated: list[int] = []
    sampling = processor()
    request = added(0, SamplingOptions(temperature=temperature, seed=0), generated, min_tokens=3)
    sampling.update_state(BatchUpdate(batch_size=1, removed=[], added=[request], moved=[]))
    for _ in range(3):
        assert tokens(sampling, logits) != [END_OF_SPEECH]
        generated.append(-1)
        sampling.update_state(None)
    assert tokens(sampling, logits) == [END_OF_SPEECH]


def test_greedy_takes_the_likeliest_token_that_is_not_among_the_last_ten() -> None:
    logits = random_logits(3, 1.0)
    best = logits[:, :UNUSED].argsort(dim=-1, descending=True).tolist()
    greedy = SamplingOptions(temperature=0, seed=0)
    generated = [best[0][:3], [*best[1][:1], *best[1][5:15]], best[2][:3]]
    options = [greedy, greedy, replace(greedy, repetition_aware=False)]
    assert next_tokens(logits, options, generated) == [best[0][3], best[1][0], best[2][0]]


def test_a_row_draws_the_same_alone_and_in_any_company() -> None:
    logits = random_logits(6, 3.0)
    repeating = logits.argmax(1, keepdim=True).tolist()
    options = [SamplingOptions(seed=row, temperature=row / 4, top_k=row + 3) for row in range(6)]
    together = next_tokens(logits, options, repeating)
    backwards = next_tokens(logits.flip(0), options[::-1], repeating[::-1])
    alone = [next_tokens(logits[[row]], [options[row]], [repeating[row]])[0] for row in range(6)]
    assert together == backwards[::-1] == alone


def test_the_random_words_are_those_of_philox() -> None:
    """Known answer of Random123's philox4x32 with 10 rounds."""
    zero = np.zeros(1, np.int64)
    assert [int(word[0]) for word in philox(zero, zero, zero)] == [0x6627E8D5, 0xE169C58D]


def test_seed_and_position_decide_the_draw() -> None:
    [logits] = random_logits(1, 0.5)
    some = SamplingOptions(seed=2**63 - 1, top_p=1.0, top_k=SPEECH_TOKENS, repetition_aware=False)
    pasts = [[0] * length for length in range(100)]
    by_position = next_tokens(logits.expand(100, -1), [some] * 100, pasts)
    assert by_position == next_tokens(logits.expand(100, -1), [some] * 100, pasts)
    assert len(set(by_position)) > 90
    by_seed = next_tokens(logits.expand(100, -1), [replace(some, seed=seed << 32) for seed in range(100)], [[]] * 100)
    assert len(set(by_seed)) > 90


def test_tokens_from_before_the_request_count_until_ten_have_been_generated() -> None:
    logits = random_logits(1, 3.0)
    best = int(logits[0, :UNUSED].argmax())
    generated: list[int] = []
    sampling = processor()
    request = added(0, SamplingOptions(temperature=0, seed=0), generated, earlier=[*range(9), best])
    sampling.update_state(BatchUpdate(batch_size=1, removed=[], added=[request], moved=[]))
    for step in range(10):
        assert tokens(sampling, logits)[0] != best, f"after {step} tokens"
        generated.append(-1)
        sampling.update_state(None)
    assert tokens(sampling, logits) == [best]


def test_a_draw_that_is_thrown_away_leaves_no_trace() -> None:
    """vLLM draws in the middle of a prompt too, also when it reads what a request had already generated."""
    logits = random_logits(3, 3.0)
    best = logits[:, :UNUSED].argsort(dim=-1, descending=True).tolist()
    generated = best[1][:10]
    sampling = processor()
    request = added(0, SamplingOptions(temperature=0, seed=0), generated)
    sampling.update_state(BatchUpdate(batch_size=1, removed=[], added=[request], moved=[]))
    for _ in range(20):
        assert tokens(sampling, logits[[0]]) == [best[0][0]]
    assert tokens(sampling, logits[[1]]) == [best[1][10]]
    generated.append(-1)  # what asynchronous scheduling writes for the token that the device has just drawn
    assert tokens(sampling, logits[[1]]) == [best[1][0]]


def test_requests_that_do_not_ask_for_it_are_left_to_vllm() -> None:
    logits = random_logits(2, 3.0)
    sampling = processor()
    other = (0, SamplingParams(), None, list[int]())
    sampling.update_state(BatchUpdate(batch_size=1, removed=[], added=[other], moved=[]))
    assert torch.equal(sampling.apply(logits.clone()), logits)
    ours = added(1, SamplingOptions(temperature=0, seed=0), [])
    sampling.update_state(BatchUpdate(batch_size=2, removed=[], added=[ours], moved=[]))
    result = sampling.apply(logits.clone())
    assert torch.equal(result[0], logits[0])
    assert result[1, logits[1, :UNUSED].argmax()] == 0.0


def test_history_follows_requests_that_leave_and_move() -> None:
    logits = random_logits(1, 3.0).expand(3, -1)
    best = logits[0, :UNUSED].argsort(descending=True)[:6].tolist()
    greedy = SamplingOptions(temperature=0, seed=0)
    sampling = processor()
    requests = [added(row, greedy, best[:row]) for row in range(3)]
    sampling.update_state(BatchUpdate(batch_size=3, removed=[], added=requests, moved=[]))
    assert tokens(sampling, logits) == best[:3]

    swap = BatchUpdate(batch_size=3, removed=[], added=[], moved=[(0, 2, MoveDirectionality.SWAP)])
    sampling.update_state(swap)
    assert tokens(sampling, logits) == [best[2], best[1], best[0]]

    leave = BatchUpdate(batch_size=2, removed=[0], added=[], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)])
    sampling.update_state(leave)
    assert tokens(sampling, logits[:2]) == [best[0], best[1]]

    newcomer = added(1, greedy, best[:3])
    sampling.update_state(BatchUpdate(batch_size=2, removed=[], added=[newcomer], moved=[]))
    assert tokens(sampling, logits[:2]) == [best[0], best[3]]


def test_a_full_batch_can_be_replaced_at_once() -> None:
    logits = random_logits(1, 3.0).expand(ROWS, -1)
    best = logits[0, :UNUSED].argsort(descending=True)[:2].tolist()
    sampling = processor()
    for past in ([], best[:1]):
        requests = [added(row, SamplingOptions(temperature=0, seed=0), list(past)) for row in range(ROWS)]
        sampling.update_state(BatchUpdate(batch_size=ROWS, removed=[], added=requests, moved=[]))
        assert tokens(sampling, logits) == [best[len(past)]] * ROWS


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**63}),
        ("temperature", {"temperature": -0.1}),
        ("temperature", {"temperature": float("nan")}),
        ("top_p", {"top_p": 0.0}),
        ("top_p", {"top_p": 1.1}),
        ("top_k", {"top_k": 0}),
        ("min_tokens", {"min_tokens": -1}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": MOST_SPEECH + 1}),
        ("min_tokens", {"min_tokens": MOST_SPEECH + 1}),
        ("max_tokens", {"min_tokens": 5, "max_tokens": 4}),
    ],
)
def test_bad_options_are_refused_by_name(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=field) as error:
        SamplingOptions(**options)
    assert error.value.param == field


def test_the_engine_is_never_given_options_without_a_seed() -> None:
    with pytest.raises(ValueError, match="seed"):
        extra_args(SamplingOptions(), [], min_tokens=0)


def test_vllms_sampler_uploads_only_when_there_is_a_new_request() -> None:
    """vLLM's second model runner asks for it in every step."""
    from vllm_cosyvoice.llm.model_state import RepetitionAwareSampler

    calls = []
    theirs = SimpleNamespace(
        add_request=lambda *arguments: calls.append(arguments), apply_staged_writes=lambda: calls.append("upload")
    )
    sampler = RepetitionAwareSampler(theirs, torch.zeros(2, WORDS, dtype=torch.int32), np.ones(2, bool))
    sampler.apply_staged_writes()
    assert calls == []
    for request in (3, 4):
        sampler.add_request(request, "its settings")
        sampler.apply_staged_writes()
        sampler.apply_staged_writes()
    assert calls == [(3, "its settings"), "upload", (4, "its settings"), "upload"]
