# The stages' images: `make build` builds all of them at once (docker-bake.hcl), `docker build --target train .` one.
#
#   build ── build-<stage>: the stage's locked packages ──┐
#     └───── package: our code, compiled ─────────────────┼─► <stage>, on runtime: the user and what all have in common
#
# A change of our code makes one small layer anew, the same for all stages. No `# syntax=` line: the frontend that the
# builder carries is enough, and needs no registry.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# uv comes from the package index as everything else does: an image of its own would need a second registry.
ARG UV_VERSION=0.13.8
ARG SETUPTOOLS_VERSION=84.2.1
# Where the public index can't be reached: --build-arg PIP_INDEX_URL=https://... Stays in this stage.
ARG PIP_INDEX_URL=
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_PROGRESS=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_DEFAULT_INDEX=${PIP_INDEX_URL} \
    PATH=/opt/tools/bin:$PATH
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    python -m venv /opt/tools \
    && /opt/tools/bin/pip install --disable-pip-version-check --quiet "uv==${UV_VERSION}"
WORKDIR /build
# The package is not in the environment but beside it, so that the environment's layer outlives a change of our code.
RUN uv venv --quiet --no-project --python /usr/local/bin/python /opt/venv \
    && echo /opt/product-classifier \
       > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/product-classifier.pth"

FROM build AS package
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --quiet --python /opt/venv/bin/python "setuptools==${SETUPTOOLS_VERSION}"
COPY LICENSE pyproject.toml ./
COPY src src
# The README is only the package's long description: a change of it should not reach the images.
RUN touch README.md \
    && uv pip install --quiet --no-cache --no-deps --no-build-isolation \
       --python /opt/venv/bin/python --target /opt/product-classifier . \
    && /opt/venv/bin/python -m compileall -q /opt/product-classifier

# Each stage's packages with their hashes, out of the lock: a change of pyproject.toml, or of another stage's packages,
# leaves a stage's list and so its layer as they are.
FROM build AS requirements
COPY pyproject.toml uv.lock ./
# `train` makes the drift report too, which needs most of its packages: no image of its own.
RUN mkdir /requirements && for extra in ingest "train --extra drift" predict auth serve; do \
      uv export --frozen --quiet --no-emit-project --no-default-groups --no-header --no-annotate \
        --extra $extra --output-file "/requirements/${extra%% *}.txt" || exit 1; \
    done

FROM build AS build-ingest
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=requirements,source=/requirements/ingest.txt,target=/requirements.txt \
    uv pip sync --quiet --python /opt/venv/bin/python --require-hashes /requirements.txt

FROM build AS build-train
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=requirements,source=/requirements/train.txt,target=/requirements.txt \
    uv pip sync --quiet --python /opt/venv/bin/python --require-hashes /requirements.txt
# TensorFlow's wheel asks for the CUDA libraries that it was made with, 3 GB more: only where training has a GPU.
ARG TRAIN_GPU=
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=requirements,source=/requirements/train.txt,target=/requirements.txt \
    [ -z "${TRAIN_GPU}" ] \
    || uv pip install --quiet --python /opt/venv/bin/python --constraint /requirements.txt 'tensorflow[and-cuda]'

# OpenVINO's plugins for graphics and neural processors, 61 MB: inference here asks for the processor by name.
FROM build AS build-predict
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=requirements,source=/requirements/predict.txt,target=/requirements.txt \
    uv pip sync --quiet --python /opt/venv/bin/python --require-hashes /requirements.txt \
    && find /opt/venv -path '*/openvino/libs/*' \
       \( -name 'libopenvino_intel_[gn]pu_plugin.so' -o -name cache.json \) -delete

FROM build AS build-auth
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=requirements,source=/requirements/auth.txt,target=/requirements.txt \
    uv pip sync --quiet --python /opt/venv/bin/python --require-hashes /requirements.txt

FROM build AS build-serve
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=requirements,source=/requirements/serve.txt,target=/requirements.txt \
    uv pip sync --quiet --python /opt/venv/bin/python --require-hashes /requirements.txt \
    && find /opt/venv -path '*/openvino/libs/*' \
       \( -name 'libopenvino_intel_[gn]pu_plugin.so' -o -name cache.json \) -delete

FROM ${PYTHON_IMAGE} AS user
# A fixed number, so that a volume keeps its owner; a stage is usually started with the number of the checkout's owner.
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app \
    && install -d -o app -g app /workspace

# What the images have in common. The commit comes last in each, so that a new one makes no layer anew.
FROM user AS runtime
ENV PATH=/opt/venv/bin:/opt/product-classifier/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.licenses=MIT
WORKDIR /workspace
USER app
ENTRYPOINT ["product-classifier"]

FROM runtime AS ingest
COPY --from=build-ingest /opt/venv /opt/venv
COPY --from=package /opt/product-classifier /opt/product-classifier
ARG GIT_COMMIT=
ENV PRODUCT_CLASSIFIER_STAGE=ingest \
    GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title=product-classifier/ingest \
      org.opencontainers.image.revision=${GIT_COMMIT}
CMD ["ingest"]

# A training's lineage names the commit of the workspace that it ran in: only `train` asks git for it.
FROM runtime AS runtime-with-git
USER root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
USER app

FROM runtime-with-git AS train
COPY --from=build-train /opt/venv /opt/venv
COPY --from=package /opt/product-classifier /opt/product-classifier
ARG GIT_COMMIT=
ENV PRODUCT_CLASSIFIER_STAGE=train \
    GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title=product-classifier/train \
      org.opencontainers.image.revision=${GIT_COMMIT}
CMD ["train"]

FROM runtime AS predict
COPY --from=build-predict /opt/venv /opt/venv
COPY --from=package /opt/product-classifier /opt/product-classifier
ARG GIT_COMMIT=
ENV PRODUCT_CLASSIFIER_STAGE=predict \
    GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title=product-classifier/predict \
      org.opencontainers.image.revision=${GIT_COMMIT}
CMD ["predict"]

FROM runtime AS auth
# A named volume takes owner and mode of the folder that it covers, and the signing keys want a private one.
USER root
RUN install -d -o app -g app -m 0700 /var/lib/auth
USER app
COPY --chmod=0644 containers/healthcheck.py /opt/healthcheck.py
COPY --from=build-auth /opt/venv /opt/venv
COPY --from=package /opt/product-classifier /opt/product-classifier
EXPOSE 8011
ENV AUTH_HOST=0.0.0.0 \
    AUTH_DATA_PATH=/var/lib/auth
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-S", "/opt/healthcheck.py", "AUTH_PORT", "8011", "/ready"]
ARG GIT_COMMIT=
ENV PRODUCT_CLASSIFIER_STAGE=auth \
    GIT_COMMIT=${GIT_COMMIT} \
    PRODUCT_CLASSIFIER_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title=product-classifier/auth \
      org.opencontainers.image.revision=${GIT_COMMIT}
CMD ["auth"]

FROM runtime AS serve
COPY --chmod=0644 containers/healthcheck.py /opt/healthcheck.py
COPY --from=build-serve /opt/venv /opt/venv
COPY --from=package /opt/product-classifier /opt/product-classifier
EXPOSE 8000
ENV SERVE_HOST=0.0.0.0
HEALTHCHECK --interval=5s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-I", "-S", "/opt/healthcheck.py", "SERVE_PORT", "8000", "/ready"]
ARG GIT_COMMIT=
ENV PRODUCT_CLASSIFIER_STAGE=serve \
    GIT_COMMIT=${GIT_COMMIT} \
    PRODUCT_CLASSIFIER_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title=product-classifier/serve \
      org.opencontainers.image.revision=${GIT_COMMIT}
CMD ["serve"]
