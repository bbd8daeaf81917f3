# Train, translate and export. On a machine with a GPU and NVIDIA's container toolkit:
#   docker build -t cyclegan-fast .
#   docker run --gpus all --shm-size 2g --user "$(id -u):$(id -g)" -v "$PWD:/work" cyclegan-fast cyclegan_fast.train --data FOLDER --amp
# PyTorch's build brings the CUDA libraries; the driver is the host's.
FROM python:3.12-slim

# Triton compiles a small C file at first use, with Python's headers, which this image has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/cyclegan-fast
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY cyclegan_fast cyclegan_fast
COPY kernels kernels
COPY export export
RUN pip install --no-cache-dir -c constraints.txt -e '.[export]'

# Any user may run it: caches of Triton, of images and of fonts go where everybody can write.
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["python", "-m"]
CMD ["cyclegan_fast"]
