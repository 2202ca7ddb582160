# The server on an NVIDIA GPU. CUDA comes with the wheels, the driver from the host.
#   docker build -t vllm-cosyvoice .
#   docker run --gpus all --ipc=host --restart unless-stopped -p 8080:8080 -v cosyvoice-home:/home/cosyvoice vllm-cosyvoice
FROM python:3.12-slim-trixie

# When the server starts, Triton compiles its launchers in C; torch.compile may compile C++.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
ENV UV_SYSTEM_PYTHON=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1

WORKDIR /app
# The dependencies first: they stay when only the source changes.
COPY pyproject.toml ./
RUN uv pip install -r pyproject.toml --extra cuda
COPY README.md LICENSE ./
COPY vllm_cosyvoice vllm_cosyvoice
COPY server server
RUN uv pip install --no-deps --editable .

RUN useradd --uid 1000 --create-home cosyvoice
USER cosyvoice
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8080/health')"]
ENTRYPOINT ["python", "-m", "server", "--host", "0.0.0.0"]
CMD ["--model_dir", "FunAudioLLM/CosyVoice2-0.5B"]
