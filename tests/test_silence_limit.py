"""A long silence of the language model is shortened for the decoder."""

from vllm_cosyvoice.llm.silence_limit import SilenceLimit

SILENT = frozenset({1, 2, 28})


def test_a_run_of_silent_tokens_is_passed_on_up_to_its_fifth() -> None:
    assert SilenceLimit(SILENT).shorten([7, 1, 2, 28, 1, 1, 2, 1, 7, 1]) == [7, 1, 2, 28, 1, 1, 7, 1]


def test_a_run_goes_on_over_steps_and_ends_with_any_other_token() -> None:
    limit = SilenceLimit(SILENT)
    assert [limit.shorten([token]) for token in [1, 1, 1, 2, 2, 2, 2]] == [[1], [1], [1], [2], [2], [], []]
    assert limit.shorten([2, 9, 2]) == [9, 2]


def test_without_silent_tokens_all_pass() -> None:
    assert SilenceLimit(frozenset()).shorten([1] * 9) == [1] * 9
