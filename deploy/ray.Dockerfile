# The image of deploy/kuberay.yaml: the image of the Dockerfile, plus Ray in the version of rayVersion there.
#   docker build -t vllm-cosyvoice . && docker build -t vllm-cosyvoice-ray -f deploy/ray.Dockerfile .
FROM vllm-cosyvoice
USER root
# KubeRay's probes use wget.
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
RUN uv pip install "ray[serve]==2.60.0"
USER cosyvoice
ENTRYPOINT []
