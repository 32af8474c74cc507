# PersonaPlex for any machine with an NVIDIA card and its container toolkit:
#   docker build -t personaplex . && docker run --gpus all -p 8998:8998 -v personaplex:/data \
#     -e HF_TOKEN -e PERSONAPLEX_PASSWORD personaplex
FROM python:3.12-slim

# A C compiler is what Triton needs to load its kernels. CUDA's libraries come with torch, the driver from the machine.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "uv>=0.9,<1"

WORKDIR /app
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
COPY pyproject.toml README.md LICENSE ./
RUN uv sync --no-dev --no-install-project
COPY core core
COPY plugins plugins
COPY personas personas
COPY web web
COPY config.yaml config.yaml
RUN uv sync --no-dev --no-editable

RUN useradd --uid 1000 --create-home personaplex && mkdir /data && chown personaplex /data
USER 1000
VOLUME /data
ENV PATH=/app/.venv/bin:$PATH \
    PERSONAPLEX_SERVER__HOST=0.0.0.0 \
    PERSONAPLEX_ENGINE__CACHE=/data/cache \
    TRITON_CACHE_DIR=/data/triton
EXPOSE 8998
HEALTHCHECK --start-period=15m --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8998/health', timeout=4)"]
CMD ["personaplex", "serve"]
