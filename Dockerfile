# syntax=docker/dockerfile:1
# The server alone: no trainers, no tests, no compiler. See docs/operations.md.
#
#   docker build -t fewstroke .
#   docker build -t fewstroke --build-arg TORCH_INDEX_URL=https://... --build-arg EXTRAS=postgres,openvino,s3 .

FROM python:3.11-slim AS build
ARG EXTRAS=postgres,openvino
# an index of torch wheels for the CPU alone makes the image a fraction of the size
ARG TORCH_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/fewstroke
# torch first and by itself: resolved together with the rest, pip may pick a larger build
COPY constraints.txt ./
RUN /opt/fewstroke/bin/pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
      "$(grep '^torch==' constraints.txt)"
COPY . .
RUN /opt/fewstroke/bin/pip install -c constraints.txt ".[$EXTRAS]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fewstroke \
    && install -d -o fewstroke -g fewstroke /data
COPY --from=build /opt/fewstroke /opt/fewstroke
COPY checkpoints /srv/fewstroke/checkpoints
WORKDIR /srv/fewstroke
# everything that is ever written goes to /data; the root file system may be read-only
ENV PATH=/opt/fewstroke/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    HF_HOME=/data/hub \
    FEWSTROKE_HOST=0.0.0.0 \
    FEWSTROKE_DATA_DIR=/data \
    FEWSTROKE_CACHE_DIR=/data/compiled
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["fewstroke"]
CMD ["serve"]
