"""Creates `cosyvoice2.yaml` or `cosyvoice3.yaml` for given sizes, with the release's keys, tags and references."""

from vllm_cosyvoice.config import (
    CHUNK_TOKENS,
    FRAMES_PER_TOKEN,
    LOOKAHEAD_TOKENS,
    MEL_BINS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SPEAKER_DIM,
    TOKEN_RATE,
    DiTFlowConfig,
    FlowConfig,
    ModelConfig,
    VocoderConfig,
)
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS


def yaml_text(config: ModelConfig) -> str:
    """The settings of a model, without those that only training needs."""
    if isinstance(config.flow, DiTFlowConfig):
        return _shared(config, "CosyVoice3LM") + _dit_flow(config.flow) + _vocoder(config.vocoder, COSYVOICE3_VOCODER)
    return _shared(config, "Qwen2LM") + _flow(config.flow) + _vocoder(config.vocoder, COSYVOICE2_VOCODER)


def _shared(config: ModelConfig, language_model: str) -> str:
    return f"""\
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:torch.manual_seed [1986]

sample_rate: {SAMPLE_RATE}
llm_input_size: {config.language_model.hidden_size}
llm_output_size: {config.language_model.hidden_size}
spk_embed_dim: {SPEAKER_DIM}
qwen_pretrain_path: ''
token_frame_rate: {TOKEN_RATE}
token_mel_ratio: {FRAMES_PER_TOKEN}
chunk_size: {CHUNK_TOKENS}
num_decoding_left_chunks: -1

llm: !new:cosyvoice.llm.llm.{language_model}
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: {SPEECH_TOKENS}
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
        top_k: 25
        win_size: 10
        tau_r: 0.1
"""


def _flow(flow: FlowConfig) -> str:
    return f"""
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
{_tokens(flow.width, flow.token_vocab_size)}
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        output_size: {flow.width}
        attention_heads: {flow.heads}
        linear_units: {flow.feed_forward}
        num_blocks: {flow.blocks}
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {flow.width}
        use_cnn_module: False
        macaron_style: False
        static_chunk_size: !ref <chunk_size>
{_solver(flow.guidance)}
        estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
            in_channels: {4 * MEL_BINS}
            out_channels: {MEL_BINS}
            channels: [{flow.estimator_channels}]
            dropout: 0.0
            attention_head_dim: {flow.estimator_head_dim}
            n_blocks: {flow.estimator_blocks}
            num_mid_blocks: {flow.estimator_mid_stages}
            num_heads: {flow.estimator_heads}
            act_fn: 'gelu'
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>
"""


def _tokens(width: int, vocab_size: int) -> str:
    return f"""\
    input_size: {width}
    output_size: {MEL_BINS}
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {vocab_size}
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: {LOOKAHEAD_TOKENS}"""


def _solver(guidance: float) -> str:
    return f"""\
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: {3 * MEL_BINS}
        n_spks: 1
        spk_emb_dim: {MEL_BINS}
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {guidance}
                reg_loss_type: 'l1'"""


def _dit_flow(flow: DiTFlowConfig) -> str:
    return f"""
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
{_tokens(MEL_BINS, flow.token_vocab_size)}
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        in_channels: {MEL_BINS}
        channels: {flow.look_ahead_width}
        pre_lookahead_len: {LOOKAHEAD_TOKENS}
{_solver(flow.guidance)}
        estimator: !new:cosyvoice.flow.DiT.dit.DiT
            dim: {flow.width}
            depth: {flow.blocks}
            heads: {flow.heads}
            dim_head: {flow.head_dim}
            ff_mult: {flow.feed_forward // flow.width}
            mel_dim: {MEL_BINS}
            mu_dim: {MEL_BINS}
            spk_dim: {MEL_BINS}
            out_channels: {MEL_BINS}
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>
"""


# Class of the vocoder, its further settings, class of its f0 predictor, top of the mel, version of the tokenizer.
COSYVOICE2_VOCODER = "HiFTGenerator", "", "ConvRNNF0Predictor", "8000", ""
COSYVOICE3_VOCODER = (
    *("CausalHiFTGenerator", "\n    conv_pre_look_right: 4", "CausalConvRNNF0Predictor", "null"),
    "\n    version: cosyvoice3",
)


def _vocoder(vocoder: VocoderConfig, family: tuple[str, str, str, str, str]) -> str:
    generator, more, f0_predictor, highest, version = family
    return f"""
hift: !new:cosyvoice.hifigan.generator.{generator}
    in_channels: {MEL_BINS}
    base_channels: {vocoder.base_channels}
    nb_harmonics: {vocoder.harmonics}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: {vocoder.sine_amplitude}
    nsf_sigma: {vocoder.noise_amplitude}
    nsf_voiced_threshold: {vocoder.voiced_threshold}
    upsample_rates: {list(vocoder.upsample_rates)}
    upsample_kernel_sizes: {list(vocoder.upsample_kernels)}
    istft_params:
        n_fft: {vocoder.n_fft}
        hop_len: {vocoder.hop_length}
    resblock_kernel_sizes: {list(vocoder.resblock_kernels)}
    resblock_dilation_sizes: {[list(vocoder.resblock_dilations) for _ in vocoder.resblock_kernels]}
    source_resblock_kernel_sizes: {list(vocoder.source_resblock_kernels)}
    source_resblock_dilation_sizes: {[list(vocoder.source_resblock_dilations) for _ in vocoder.source_resblock_kernels]}
    lrelu_slope: {vocoder.leaky_slope}
    audio_limit: {vocoder.audio_limit}{more}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.{f0_predictor}
        num_class: 1
        in_channels: {MEL_BINS}
        cond_channels: {vocoder.f0_channels}

get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True{version}
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: {4 * SAMPLES_PER_FRAME}
    num_mels: {MEL_BINS}
    sampling_rate: !ref <sample_rate>
    hop_size: {SAMPLES_PER_FRAME}
    win_size: {4 * SAMPLES_PER_FRAME}
    fmin: 0
    fmax: {highest}
    center: False
"""
