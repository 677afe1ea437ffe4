# A server on a CPU:
#   docker build --tag sessrec .
#   docker run --publish 127.0.0.1:8000:8000 --volume $PWD/lightning_logs/my-run/checkpoints:/model:ro sessrec
# torch comes with CUDA unless TORCH_INDEX names an index of builds for CPUs: --build-arg TORCH_INDEX=...
FROM python:3.12-slim

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 sessrec
COPY setup.cfg pyproject.toml README.md LICENSE /source/
COPY sessrec /source/sessrec
COPY configs /source/configs
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.5" \
    && pip install "/source[serve,redis]" \
    && rm -r /source

USER sessrec
WORKDIR /home/sessrec
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["sessrec", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--ckpt_path", "/model/best.ckpt"]
