"""How large the demo model is: 55 MB in half precision, faster than real time on two CPU cores.

CosyVoice's own code loads it. That code fixes the width of the flow's encoder, and its four blocks at the frame rate.
"""

from vllm_cosyvoice.config import FlowConfig, LanguageModelConfig, ModelConfig, VocoderConfig

DEMO = ModelConfig(
    LanguageModelConfig(
        hidden_size=256,
        intermediate_size=704,
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        text_vocab_size=640,
        max_position=4096,
        rope_theta=10_000.0,
    ),
    FlowConfig(
        width=512,
        heads=8,
        feed_forward=256,
        blocks=1,
        up_blocks=4,
        estimator_channels=128,
        estimator_heads=4,
        estimator_head_dim=32,
        estimator_blocks=1,
        estimator_mid_stages=4,
    ),
    VocoderConfig(base_channels=192, f0_channels=128, harmonics=40),
)
TOKENIZER_CHANNELS = 144
SPEAKER_CHANNELS = 96

# For trying the recipe out within a minute on a CPU: nothing that it makes can be understood.
TOY = ModelConfig(
    LanguageModelConfig(
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        text_vocab_size=640,
        max_position=4096,
        rope_theta=10_000.0,
    ),
    FlowConfig(
        width=64,
        heads=2,
        feed_forward=128,
        blocks=1,
        up_blocks=4,
        estimator_channels=32,
        estimator_heads=2,
        estimator_head_dim=16,
        estimator_blocks=1,
        estimator_mid_stages=1,
    ),
    VocoderConfig(base_channels=32, f0_channels=32),
)
SIZES = {"demo": DEMO, "toy": TOY}
