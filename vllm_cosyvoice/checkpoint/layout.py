"""Names and shapes of all tensors in `llm.pt`, `flow.pt` and `hift.pt`, derived from a model's sizes."""

import math
from collections.abc import Collection

from vllm_cosyvoice.config import (
    F0_LOOKAHEAD,
    MEL_BINS,
    SPEAKER_DIM,
    VOCODER_LOOKAHEAD,
    CausalVocoderConfig,
    DiTFlowConfig,
    FlowConfig,
    LanguageModelConfig,
    VocoderConfig,
)
from vllm_cosyvoice.vocabulary import HEAD_SIZE, SPEECH_TOKENS

Layout = dict[str, tuple[int, ...]]

COSYVOICE3_CONTROLS = 200  # rows behind the speech tokens: start, end, task, fill, and 196 that nothing uses
LOOKAHEAD_KERNELS = (4, 3)
UPSAMPLE_KERNEL = 5
ESTIMATOR_KERNEL = 3
ESTIMATOR_INPUTS = 4 * MEL_BINS  # x, mu, speaker and condition, concatenated
ESTIMATOR_EXPANSION = 4  # feed-forward and time embedding widths, in units of the estimator's channels
DIT_TIME_DIM = 256
DIT_POSITION_KERNEL = 31
DIT_POSITION_GROUPS = 16
PARAMETRIZED, NORM, DIRECTION = ".parametrizations.weight.", "original0", "original1"  # weight norm
VOCODER_OUTER_KERNEL = 7  # conv_pre and conv_post
F0_KERNEL = 3
F0_LAYERS = 5


def language_model_layout(config: LanguageModelConfig) -> Layout:
    """CosyVoice2's `llm.pt`: the two special rows, a Qwen2 decoder, the head and the speech embedding."""
    hidden = config.hidden_size
    entries: Layout = {"llm_embedding.weight": (2, hidden)} | _qwen2(config) | _affine("llm_decoder", HEAD_SIZE, hidden)
    return entries | {"speech_embedding.weight": (HEAD_SIZE, hidden)}


def language_model3_layout(config: LanguageModelConfig) -> Layout:
    """CosyVoice3's `llm.pt`: a Qwen2 decoder, the head and the speech embedding, which have rows for all controls."""
    table = SPEECH_TOKENS + COSYVOICE3_CONTROLS, config.hidden_size
    return _qwen2(config) | {"llm_decoder.weight": table, "speech_embedding.weight": table}


def _qwen2(config: LanguageModelConfig) -> Layout:
    hidden, kv_width = config.hidden_size, config.num_kv_heads * config.hidden_size // config.num_heads
    entries: Layout = {"llm.model.model.embed_tokens.weight": (config.text_vocab_size, hidden)}
    for index in range(config.num_layers):
        layer = f"llm.model.model.layers.{index}"
        for name, width in (("q_proj", hidden), ("k_proj", kv_width), ("v_proj", kv_width)):
            entries |= _affine(f"{layer}.self_attn.{name}", width, hidden)
        entries[f"{layer}.self_attn.o_proj.weight"] = (hidden, hidden)
        entries[f"{layer}.mlp.gate_proj.weight"] = (config.intermediate_size, hidden)
        entries[f"{layer}.mlp.up_proj.weight"] = (config.intermediate_size, hidden)
        entries[f"{layer}.mlp.down_proj.weight"] = (hidden, config.intermediate_size)
        entries[f"{layer}.input_layernorm.weight"] = (hidden,)
        entries[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
    entries["llm.model.model.norm.weight"] = (hidden,)
    entries["llm.model.lm_head.weight"] = (config.text_vocab_size, hidden)
    return entries


def flow_layout(config: FlowConfig | DiTFlowConfig) -> Layout:
    """`flow.pt`: the token encoder and the estimator of the flow's velocity."""
    if isinstance(config, DiTFlowConfig):
        return _dit_flow(config)
    width = config.width
    entries: Layout = {"input_embedding.weight": (config.token_vocab_size, width)}
    entries |= _affine("spk_embed_affine_layer", MEL_BINS, SPEAKER_DIM)
    for embed in ("encoder.embed", "encoder.up_embed"):
        entries |= _affine(f"{embed}.out.0", width, width)
        entries |= _affine(f"{embed}.out.1", width)
    entries |= _affine("encoder.after_norm", width)
    for name, kernel in zip(("conv1", "conv2"), LOOKAHEAD_KERNELS, strict=True):
        entries |= _affine(f"encoder.pre_lookahead_layer.{name}", width, width, kernel)
    entries |= _affine("encoder.up_layer.conv", width, width, UPSAMPLE_KERNEL)
    for stack, blocks in (("encoders", config.blocks), ("up_encoders", config.up_blocks)):
        for index in range(blocks):
            entries |= _encoder_block(f"encoder.{stack}.{index}", config)
    return entries | _affine("encoder_proj", MEL_BINS, width) | _estimator("decoder.estimator", config)


def _dit_flow(config: DiTFlowConfig) -> Layout:
    """`flow.pt` of CosyVoice3: the token encoder and the diffusion transformer."""
    width, attention = config.width, config.heads * config.head_dim
    entries: Layout = {"input_embedding.weight": (config.token_vocab_size, MEL_BINS)}
    entries |= _affine("spk_embed_affine_layer", MEL_BINS, SPEAKER_DIM)
    first, second = LOOKAHEAD_KERNELS
    entries |= _affine("pre_lookahead_layer.conv1", config.look_ahead_width, MEL_BINS, first)
    entries |= _affine("pre_lookahead_layer.conv2", MEL_BINS, config.look_ahead_width, second)
    name = "decoder.estimator"
    entries |= _affine(f"{name}.time_embed.time_mlp.0", width, DIT_TIME_DIM)
    entries |= _affine(f"{name}.time_embed.time_mlp.2", width, width)
    entries |= _affine(f"{name}.input_embed.proj", width, ESTIMATOR_INPUTS)
    for conv in ("conv1", "conv2"):
        inputs = width // DIT_POSITION_GROUPS
        entries |= _affine(f"{name}.input_embed.conv_pos_embed.{conv}.0", width, inputs, DIT_POSITION_KERNEL)
    entries[f"{name}.rotary_embed.inv_freq"] = (config.head_dim // 2,)
    for index in range(config.blocks):
        block = f"{name}.transformer_blocks.{index}"
        entries |= _affine(f"{block}.attn_norm.linear", 6 * width, width)
        for which in "qkv":
            entries |= _affine(f"{block}.attn.to_{which}", attention, width)
        entries |= _affine(f"{block}.attn.to_out.0", width, attention)
        entries |= _affine(f"{block}.ff.ff.0.0", config.feed_forward, width)
        entries |= _affine(f"{block}.ff.ff.2", width, config.feed_forward)
    return entries | _affine(f"{name}.norm_out.linear", 2 * width, width) | _affine(f"{name}.proj_out", MEL_BINS, width)


def vocoder_layout(config: VocoderConfig) -> Layout:
    """`hift.pt`: f0 predictor, harmonic source and waveform generator."""
    entries = _vocoder(config)
    if isinstance(config, CausalVocoderConfig):  # other kernels, and upsampling without transposed convolutions
        entries |= _weight_normed("conv_pre", config.base_channels, MEL_BINS, VOCODER_LOOKAHEAD + 1)
        for index, kernel in enumerate(config.upsample_kernels):
            inputs = config.base_channels >> index
            entries |= _weight_normed(f"ups.{index}", inputs // 2, inputs, kernel)
        entries |= _weight_normed("f0_predictor.condnet.0", config.f0_channels, MEL_BINS, F0_LOOKAHEAD + 1)
    return entries


def _vocoder(config: VocoderConfig) -> Layout:
    entries: Layout = _affine("m_source.l_linear", 1, config.harmonics + 1)
    entries |= _weight_normed("conv_pre", config.base_channels, MEL_BINS, VOCODER_OUTER_KERNEL)
    spectrum = config.n_fft + 2  # real and imaginary parts, or log-magnitude and phase, of n_fft / 2 + 1 bins
    channels = config.base_channels
    for index, kernel in enumerate(config.upsample_kernels):
        inputs, channels = channels, channels // 2
        # The first axis of a transposed convolution is its input channels, which also have the norms.
        entries |= _weight_normed(f"ups.{index}", inputs, channels, kernel, bias=channels)
        rate = math.prod(config.upsample_rates[index + 1 :])
        entries |= _affine(f"source_downs.{index}", channels, spectrum, 2 * rate if rate > 1 else 1)
        source_kernel = config.source_resblock_kernels[index]
        dilations = len(config.source_resblock_dilations)
        entries |= _resblock(f"source_resblocks.{index}", channels, source_kernel, dilations)
        for position, body_kernel in enumerate(config.resblock_kernels):
            number = index * len(config.resblock_kernels) + position
            entries |= _resblock(f"resblocks.{number}", channels, body_kernel, len(config.resblock_dilations))
    entries |= _weight_normed("conv_post", spectrum, channels, VOCODER_OUTER_KERNEL)
    for index in range(F0_LAYERS):
        inputs = config.f0_channels if index else MEL_BINS
        # Every other entry of `condnet` is an activation.
        entries |= _weight_normed(f"f0_predictor.condnet.{2 * index}", config.f0_channels, inputs, F0_KERNEL)
    entries |= _affine("f0_predictor.classifier", 1, config.f0_channels)
    return entries


def with_folded_norms(layout: Layout, names: Collection[str]) -> Layout:
    """Replace norm and direction in `layout` by a layer's `weight` if it is in `names`."""
    folded: Layout = {}
    for name, shape in layout.items():
        layer, _, part = name.partition(PARAMETRIZED)
        if not part or f"{layer}.weight" not in names:
            folded[name] = shape
        elif part == DIRECTION:
            folded[f"{layer}.weight"] = shape
    return folded


def _affine(name: str, outputs: int, *rest: int) -> Layout:
    return {f"{name}.weight": (outputs, *rest), f"{name}.bias": (outputs,)}


def _weight_normed(name: str, first: int, *rest: int, bias: int | None = None) -> Layout:
    return {
        f"{name}.bias": (first if bias is None else bias,),
        f"{name}{PARAMETRIZED}{NORM}": (first, 1, 1),
        f"{name}{PARAMETRIZED}{DIRECTION}": (first, *rest),
    }


def _encoder_block(name: str, config: FlowConfig) -> Layout:
    width, head_width = config.width, config.width // config.heads
    entries: Layout = {f"{name}.self_attn.pos_bias_{which}": (config.heads, head_width) for which in "uv"}
    for projection in ("linear_q", "linear_k", "linear_v", "linear_out"):
        entries |= _affine(f"{name}.self_attn.{projection}", width, width)
    entries[f"{name}.self_attn.linear_pos.weight"] = (width, width)
    entries |= _affine(f"{name}.feed_forward.w_1", config.feed_forward, width)
    entries |= _affine(f"{name}.feed_forward.w_2", width, config.feed_forward)
    return entries | _affine(f"{name}.norm_ff", width) | _affine(f"{name}.norm_mha", width)


def _estimator(name: str, config: FlowConfig) -> Layout:
    channels = config.estimator_channels
    time_width = ESTIMATOR_EXPANSION * channels
    entries = _affine(f"{name}.time_mlp.linear_1", time_width, ESTIMATOR_INPUTS)
    entries |= _affine(f"{name}.time_mlp.linear_2", time_width, time_width)
    stages = [("down_blocks.0", ESTIMATOR_INPUTS)]
    stages += [(f"mid_blocks.{index}", channels) for index in range(config.estimator_mid_stages)]
    stages += [("up_blocks.0", 2 * channels)]
    for stage, inputs in stages:
        entries |= _estimator_resnet(f"{name}.{stage}.0", inputs, channels)
        for index in range(config.estimator_blocks):
            entries |= _estimator_transformer(f"{name}.{stage}.1.{index}", config)
        if not stage.startswith("mid"):
            entries |= _affine(f"{name}.{stage}.2", channels, channels, ESTIMATOR_KERNEL)
    entries |= _causal_block(f"{name}.final_block", channels, channels)
    return entries | _affine(f"{name}.final_proj", MEL_BINS, channels, 1)


def _causal_block(name: str, inputs: int, channels: int) -> Layout:
    return _affine(f"{name}.block.0", channels, inputs, ESTIMATOR_KERNEL) | _affine(f"{name}.block.2", channels)


def _estimator_resnet(name: str, inputs: int, channels: int) -> Layout:
    entries = _affine(f"{name}.mlp.1", channels, ESTIMATOR_EXPANSION * channels)
    entries |= _causal_block(f"{name}.block1", inputs, channels)
    entries |= _causal_block(f"{name}.block2", channels, channels)
    return entries | _affine(f"{name}.res_conv", channels, inputs, 1)


def _estimator_transformer(name: str, config: FlowConfig) -> Layout:
    channels = config.estimator_channels
    attention = config.estimator_heads * config.estimator_head_dim
    entries: Layout = {f"{name}.attn1.to_{which}.weight": (attention, channels) for which in "qkv"}
    entries |= _affine(f"{name}.attn1.to_out.0", channels, attention)
    entries |= _affine(f"{name}.norm1", channels) | _affine(f"{name}.norm3", channels)
    entries |= _affine(f"{name}.ff.net.0.proj", ESTIMATOR_EXPANSION * channels, channels)
    return entries | _affine(f"{name}.ff.net.2", channels, ESTIMATOR_EXPANSION * channels)


def _resblock(name: str, channels: int, kernel: int, dilations: int) -> Layout:
    entries: Layout = {}
    for which in (1, 2):
        for index in range(dilations):
            entries |= _weight_normed(f"{name}.convs{which}.{index}", channels, channels, kernel)
            entries[f"{name}.activations{which}.{index}.alpha"] = (channels,)
    return entries
