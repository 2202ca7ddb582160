"""CosyVoice2."""

from collections.abc import Iterable

from vllm_cosyvoice.checkpoint import layout, sizes
from vllm_cosyvoice.checkpoint.family import END_OF_PROMPT, ModelFamily
from vllm_cosyvoice.checkpoint.hyperyaml import CLASS, HyperYaml
from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, RELEASED_MODEL, LanguageModelConfig, ModelConfig
from vllm_cosyvoice.llm.registration import COSYVOICE2_ARCHITECTURE
from vllm_cosyvoice.text.special_tokens import SOUNDS

CLASSES = {
    "llm": "cosyvoice.llm.llm.Qwen2LM",
    "flow": "cosyvoice.flow.flow.CausalMaskedDiffWithXvec",
    "flow.encoder": "cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder",
    "hift": "cosyvoice.hifigan.generator.HiFTGenerator",
}
REQUIRED = {
    "flow.decoder.estimator.static_chunk_size": CHUNK_FRAMES,
    "flow.decoder.estimator.causal": True,
    "flow.decoder.estimator.act_fn": "gelu",
    "flow.encoder.static_chunk_size": CHUNK_TOKENS,
    "flow.encoder.normalize_before": True,
    "flow.encoder.input_layer": "linear",
    "flow.encoder.pos_enc_layer_type": "rel_pos_espnet",
    "flow.encoder.selfattention_layer_type": "rel_selfattn",
    "flow.encoder.activation_type": "swish",
    "flow.encoder.use_cnn_module": False,
    "flow.encoder.macaron_style": False,
    f"hift.f0_predictor.{CLASS}": "cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor",
    "feat_extractor.fmax": 8000,
    "get_tokenizer.version": "cosyvoice2",
}


def _sizes(settings: HyperYaml, flow_tensors: Iterable[str], language_model: LanguageModelConfig) -> ModelConfig:
    return ModelConfig(language_model, sizes.flow_config(settings, flow_tensors), sizes.vocoder_config(settings))


def _prompt_text(instructions: str | None, transcript: str) -> tuple[str, str]:
    if instructions:
        return instructions.replace(END_OF_PROMPT, " ").strip() + END_OF_PROMPT, ""
    return "", transcript


COSYVOICE2 = ModelFamily(
    name="CosyVoice2",
    released=RELEASED_MODEL,
    settings="cosyvoice2.yaml",
    classes=CLASSES,
    required=REQUIRED,
    speech_tokenizer="speech_tokenizer_v2.onnx",
    architecture=COSYVOICE2_ARCHITECTURE,
    sizes=_sizes,
    language_model_layout=layout.language_model_layout,
    prompt_text=_prompt_text,
    special_tokens=SOUNDS,
    silent_tokens=frozenset(),
    highest_mel=8000.0,
)
