"""CosyVoice3."""

from collections.abc import Iterable

from vllm_cosyvoice.checkpoint import layout, sizes
from vllm_cosyvoice.checkpoint.family import END_OF_PROMPT, ModelFamily
from vllm_cosyvoice.checkpoint.hyperyaml import CLASS, HyperYaml
from vllm_cosyvoice.config import CHUNK_FRAMES, LOOKAHEAD_TOKENS, VOCODER_LOOKAHEAD, LanguageModelConfig, ModelConfig
from vllm_cosyvoice.llm.registration import COSYVOICE3_ARCHITECTURE
from vllm_cosyvoice.text.special_tokens import PRONUNCIATIONS, SOUNDS

SYSTEM = "You are a helpful assistant."  # every prompt in training began with it

CLASSES = {
    "llm": "cosyvoice.llm.llm.CosyVoice3LM",
    "flow": "cosyvoice.flow.flow.CausalMaskedDiffWithDiT",
    "flow.pre_lookahead_layer": "cosyvoice.transformer.upsample_encoder.PreLookaheadLayer",
    "flow.decoder.estimator": "cosyvoice.flow.DiT.dit.DiT",
    "hift": "cosyvoice.hifigan.generator.CausalHiFTGenerator",
}
REQUIRED = {
    "flow.pre_lookahead_layer.pre_lookahead_len": LOOKAHEAD_TOKENS,
    "flow.decoder.estimator.static_chunk_size": CHUNK_FRAMES,
    f"hift.f0_predictor.{CLASS}": "cosyvoice.hifigan.f0_predictor.CausalConvRNNF0Predictor",
    "hift.conv_pre_look_right": VOCODER_LOOKAHEAD,
    "feat_extractor.fmax": None,  # half the sample rate
    "get_tokenizer.version": "cosyvoice3",
}


def _sizes(settings: HyperYaml, flow_tensors: Iterable[str], language_model: LanguageModelConfig) -> ModelConfig:
    return ModelConfig(language_model, sizes.dit_flow_config(settings), sizes.causal_vocoder_config(settings))


def _prompt_text(instructions: str | None, transcript: str) -> tuple[str, str]:
    """The instruction, which the model was never trained without, and the transcript.

    A caller may write the system text: as CosyVoice's own examples do, in front of the transcript.
    """
    if instructions:
        words = instructions.replace(END_OF_PROMPT, " ").removeprefix(SYSTEM).strip()
        return f"{SYSTEM} {words}{END_OF_PROMPT}", ""
    instruction, mark, rest = transcript.rpartition(END_OF_PROMPT)
    return (instruction if mark else SYSTEM) + END_OF_PROMPT, rest


COSYVOICE3 = ModelFamily(
    name="CosyVoice3",
    released="FunAudioLLM/Fun-CosyVoice3-0.5B-2512",
    settings="cosyvoice3.yaml",
    classes=CLASSES,
    required=REQUIRED,
    speech_tokenizer="speech_tokenizer_v3.onnx",
    architecture=COSYVOICE3_ARCHITECTURE,
    sizes=_sizes,
    language_model_layout=layout.language_model3_layout,
    prompt_text=_prompt_text,
    special_tokens=(*SOUNDS, *PRONUNCIATIONS),
    silent_tokens=frozenset({1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323}),
    highest_mel=12_000.0,
)
