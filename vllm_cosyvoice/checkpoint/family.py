"""What distinguishes one generation of CosyVoice models from another, besides its sizes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.hyperyaml import CLASS, HyperYaml
from vllm_cosyvoice.checkpoint.layout import Layout
from vllm_cosyvoice.config import (
    FRAMES_PER_TOKEN,
    LOOKAHEAD_TOKENS,
    MEL_BINS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SPEAKER_DIM,
    TOKEN_RATE,
    LanguageModelConfig,
    ModelConfig,
)
from vllm_cosyvoice.llm.text_stream import SPEECH_GROUP, TEXT_GROUP
from vllm_cosyvoice.llm.token_draw import WINDOW
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

END_OF_PROMPT = "<|endofprompt|>"  # ends an instruction

Values = Mapping[str, object]

# Settings that all families share. A model with other values would give wrong results, so it is rejected.
SHARED: Values = {
    "sample_rate": SAMPLE_RATE,
    "token_frame_rate": TOKEN_RATE,
    "token_mel_ratio": FRAMES_PER_TOKEN,
    "spk_embed_dim": SPEAKER_DIM,
    "llm.speech_token_size": SPEECH_TOKENS,
    "llm.mix_ratio": [TEXT_GROUP, SPEECH_GROUP],
    "flow.output_size": MEL_BINS,
    "flow.output_type": "mel",
    "flow.spk_embed_dim": SPEAKER_DIM,
    "flow.input_frame_rate": TOKEN_RATE,
    "flow.token_mel_ratio": FRAMES_PER_TOKEN,
    "flow.pre_lookahead_len": LOOKAHEAD_TOKENS,
    f"flow.decoder.{CLASS}": "cosyvoice.flow.flow_matching.CausalConditionalCFM",
    "flow.decoder.cfm_params.content.solver": "euler",
    "flow.decoder.cfm_params.content.t_scheduler": "cosine",
    "hift.in_channels": MEL_BINS,
    "hift.sampling_rate": SAMPLE_RATE,
    f"feat_extractor.{CLASS}": "matcha.utils.audio.mel_spectrogram",
    "feat_extractor.n_fft": 4 * SAMPLES_PER_FRAME,
    "feat_extractor.num_mels": MEL_BINS,
    "feat_extractor.sampling_rate": SAMPLE_RATE,
    "feat_extractor.hop_size": SAMPLES_PER_FRAME,
    "feat_extractor.win_size": 4 * SAMPLES_PER_FRAME,
    "feat_extractor.fmin": 0,
    "feat_extractor.center": False,
    f"get_tokenizer.{CLASS}": "cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer",
    "allowed_special": "all",
}
# Sampling does not depend on the weights: a model with other values works once they are restored.
SAMPLING: Values = {
    f"llm.sampling.{CLASS}": "cosyvoice.utils.common.ras_sampling",
    "llm.sampling.top_p": SamplingOptions.top_p,
    "llm.sampling.top_k": SamplingOptions.top_k,
    "llm.sampling.win_size": WINDOW,
    "llm.sampling.tau_r": 1 / WINDOW,  # one repetition in the window
}
RESTORE = "restore that value; top_p and top_k can be set in each request"


@dataclass(frozen=True)
class ModelFamily:
    """A generation of models. The rest of the engine asks it and does not know which one it serves.

    All families share the ids of `vocabulary`: their class in vLLM puts the rows of their tables into that order when
    it loads them. Their flow and vocoder follow from the class of their sizes.
    """

    name: str
    released: str  # name of the released model on the hub
    settings: str  # the YAML file that identifies the family
    classes: Mapping[str, str]  # in the settings
    required: Values  # other settings that must be so, beside `SHARED`; omitted ones default to the release's
    speech_tokenizer: str  # ONNX file
    architecture: str  # class of the language model in vLLM, registered by `llm.registration`
    sizes: Callable[[HyperYaml, Iterable[str], LanguageModelConfig], ModelConfig]  # the names are those in flow.pt
    language_model_layout: Callable[[LanguageModelConfig], Layout]
    # Converts instructions, if any, and a transcript, maybe empty, to the instruction and the transcript of the prompt.
    prompt_text: Callable[[str | None, str], tuple[str, str]]
    special_tokens: tuple[str, ...]  # of the tokenizer, in the order of their ids; "[breath]" and the like
    silent_tokens: frozenset[int]  # speech tokens of which the decoder gets only a few in a row
    highest_mel: float  # Hz, top of the prompt's mel

    def check(self, settings: HyperYaml) -> None:
        """Raise CheckpointError if a class or a fixed value differs from what this engine can run."""
        for part, class_name in self.classes.items():
            found = settings.get(f"{part}.{CLASS}")
            if found != class_name:
                raise CheckpointError(
                    f"{settings.path} is not a {self.name} configuration: {part} is {found or 'missing'}, not"
                    f" {class_name}; use a model such as {self.released}"
                )
        trained = f"use a model that was trained like {self.released.rpartition('/')[2]}"
        for values, cure in (({**SHARED, **self.required}, trained), (SAMPLING, RESTORE)):
            for name, expected in values.items():
                found = settings.get(name, expected)
                if found != expected:
                    raise CheckpointError(
                        f"{settings.path} sets {name.removesuffix(f'.{CLASS}')} to {found}, but this engine is built"
                        f" for {expected}; {cure}"
                    )
