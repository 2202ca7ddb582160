"""CosyVoice2: the settings that this engine requires, the files' contents, and what precedes a text."""

from collections.abc import Iterable

from vllm_cosyvoice.checkpoint import layout, sizes
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.family import ModelFamily
from vllm_cosyvoice.checkpoint.hyperyaml import CLASS, HyperYaml
from vllm_cosyvoice.config import (
    CHUNK_FRAMES,
    CHUNK_TOKENS,
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
from vllm_cosyvoice.llm.registration import COSYVOICE2_ARCHITECTURE
from vllm_cosyvoice.llm.text_stream import SPEECH_GROUP, TEXT_GROUP
from vllm_cosyvoice.llm.token_draw import WINDOW
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

END_OF_PROMPT = "<|endofprompt|>"  # ends an instruction

# These classes identify a CosyVoice2; CosyVoice 1 and 3 have others.
CLASSES = {
    "llm": "cosyvoice.llm.llm.Qwen2LM",
    "flow": "cosyvoice.flow.flow.CausalMaskedDiffWithXvec",
    "flow.encoder": "cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder",
    "hift": "cosyvoice.hifigan.generator.HiFTGenerator",
}

# A model with other values would give wrong results, so it is rejected.
TRAINED = {
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
    "hift.in_channels": MEL_BINS,
    "hift.sampling_rate": SAMPLE_RATE,
    f"hift.f0_predictor.{CLASS}": "cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor",
    f"feat_extractor.{CLASS}": "matcha.utils.audio.mel_spectrogram",
    "feat_extractor.n_fft": 4 * SAMPLES_PER_FRAME,
    "feat_extractor.num_mels": MEL_BINS,
    "feat_extractor.sampling_rate": SAMPLE_RATE,
    "feat_extractor.hop_size": SAMPLES_PER_FRAME,
    "feat_extractor.win_size": 4 * SAMPLES_PER_FRAME,
    "feat_extractor.fmin": 0,
    "feat_extractor.fmax": 8000,
    "feat_extractor.center": False,
    f"get_tokenizer.{CLASS}": "cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer",
    "get_tokenizer.version": "cosyvoice2",
    "allowed_special": "all",
}
# Sampling does not depend on the weights: a model with other values here works once they are restored.
DRAWN = {
    f"llm.sampling.{CLASS}": "cosyvoice.utils.common.ras_sampling",
    "llm.sampling.top_p": SamplingOptions.top_p,
    "llm.sampling.top_k": SamplingOptions.top_k,
    "llm.sampling.win_size": WINDOW,
    "llm.sampling.tau_r": 1 / WINDOW,  # one repetition in the window
}
CURES = (
    (TRAINED, "use a model that was trained like CosyVoice2-0.5B"),
    (DRAWN, "restore that value; top_p and top_k can be set in each request"),
)


def _check(settings: HyperYaml) -> None:
    """Raise CheckpointError if a class or a fixed value differs from a CosyVoice2 that this engine can run."""
    for part, class_name in CLASSES.items():
        value = settings.get(f"{part}.{CLASS}")
        if value != class_name:
            raise CheckpointError(
                f"{settings.path} is not a CosyVoice2 configuration: {part} is {value or 'missing'}, not {class_name};"
                f" this engine runs CosyVoice2 models only, such as FunAudioLLM/CosyVoice2-0.5B"
            )
    for values, cure in CURES:
        for name, expected in values.items():
            value = settings.get(name, expected)  # omitted values default to the release's
            if value != expected:
                raise CheckpointError(
                    f"{settings.path} sets {name.removesuffix(f'.{CLASS}')} to {value}, but this engine is built for"
                    f" {expected}; {cure}"
                )


def _sizes(settings: HyperYaml, flow_tensors: Iterable[str], language_model: LanguageModelConfig) -> ModelConfig:
    return ModelConfig(language_model, sizes.flow_config(settings, flow_tensors), sizes.vocoder_config(settings))


def _prompt_text(instructions: str | None, transcript: str) -> str:
    if instructions:
        return instructions.replace(END_OF_PROMPT, " ").strip() + END_OF_PROMPT
    return transcript


COSYVOICE2 = ModelFamily(
    name="CosyVoice2",
    settings="cosyvoice2.yaml",
    speech_tokenizer="speech_tokenizer_v2.onnx",
    architecture=COSYVOICE2_ARCHITECTURE,
    check=_check,
    sizes=_sizes,
    language_model_layout=layout.language_model_layout,
    flow_layout=lambda config: layout.flow_layout(config.flow),
    vocoder_layout=lambda config: layout.vocoder_layout(config.vocoder),
    prompt_text=_prompt_text,
)
