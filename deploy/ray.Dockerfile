# The image of deploy/kuberay.yaml, from that of the Dockerfile, with the Ray that rayVersion names there:
#   docker build -t vllm-cosyvoice . && docker build -t vllm-cosyvoice-ray -f deploy/ray.Dockerfile .
FROM vllm-cosyvoice
USER root
# KubeRay's probes ask with wget.
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
RUN uv pip install "ray[serve]==2.60.0"
USER cosyvoice
ENTRYPOINT []
