# The server on an NVIDIA GPU.
#   docker build -t vllm-cosyvoice .
#   docker run --gpus all --ipc=host -p 8080:8080 -v cosyvoice:/root/.cache vllm-cosyvoice
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir uv
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv

COPY setup.py pyproject.toml README.md ./
COPY vllm_cosyvoice vllm_cosyvoice
COPY server server
RUN uv pip install --no-cache '.[cuda]'

EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "server", "--host", "0.0.0.0", "--port", "8080"]
CMD ["--model_dir", "FunAudioLLM/CosyVoice2-0.5B"]
