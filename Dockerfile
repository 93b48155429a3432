# check=skip=RedundantTargetPlatform
# The agent-runner's image: Python 3.11, a shell with its tools, and the worker.
#
#   python      python:3.11-slim for the target platform; other stages copy from it
#   scripts     python:3.11-slim for the build platform, with what the stages below run, except app
#   tools       uv, which installs packages
#   base        the part of `python` that the runner needs, copied by agent-runner/image/assemble.py
#   packages    the locked packages for the target, compiled, without unneeded files
#   foundation  base + packages + the image's settings
#   app         the runner's code, compiled; the same for every target, so it is built only once
#   dev         all locked packages, including those for development
#   check       runs ruff and mypy on agent-runner; the build fails if they find a problem
#   devserver   the development stigmer-server; it is not part of the image
#   agent-tools Debian's packages and uv for the target, for the flavour `tools`
#   runtime-tools  foundation + agent-tools + app: the flavour `tools`
#   runtime     foundation + app
#
# Every command runs on the build platform, so building for another platform needs no emulation.
#
# The file must build with BuildKit since Docker 20.10 and with Buildah since 1.28. Therefore it does
# not use `# syntax=`, here-documents, COPY --link or --start-interval. Every FROM of an image has a
# --platform, even if BuildKit considers it redundant, because Podman otherwise uses the platform of
# the stage before.

ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim


FROM --platform=$TARGETPLATFORM ${PYTHON_IMAGE} AS python


# The scripts, and the lock file of the packages. Buildah takes 0.2 s for each COPY, even if the step is
# cached, so there is one for all stages.
FROM --platform=$BUILDPLATFORM ${PYTHON_IMAGE} AS scripts
COPY agent-runner/image agent-runner/poetry.lock /image/


# uv, pinned by hash, for `packages` and `dev`.
FROM scripts AS tools
ARG PIP_INDEX_URL=
# pip runs directly from the wheel that Python includes. Installing pip would take longer than this
# step.
RUN --mount=type=secret,id=ca \
    pip=$(find /usr/local/lib/python3*/ensurepip /usr/share/python-wheels -name 'pip-*.whl' 2>/dev/null \
        | head -n 1) \
 && sh /image/fetch.sh python3 "$pip/pip" install --quiet --no-cache-dir --no-compile \
        --disable-pip-version-check --root-user-action ignore --target /uv \
        --require-hashes --only-binary :all: -r /image/uv.txt


FROM scripts AS base
ARG TARGETARCH
# With a fixed hash seed, the order of sets in bytecode is reproducible. The container's user owns its
# home and /workspace. /workspace is writable for every user, for containers with another uid.
RUN --mount=type=bind,from=python,target=/python \
    PYTHONHASHSEED=0 python3 -X no_debug_ranges /image/assemble.py base --arch "$TARGETARCH" /python /tree \
 && install -d -o 1000 -g 1000 /tree/home/stigmer \
 && install -d -o 1000 -g 1000 -m 0777 /tree/workspace \
 && touch -d @315532800 /tree /tree/home /tree/home/stigmer /tree/workspace


FROM tools AS packages
ARG CACHE_ID=agent-runner TARGETARCH PIP_INDEX_URL=
# The wheels may need at most glibc 2.28; python:3.11-slim has a newer version. `verify` finds missing
# libraries, which would otherwise appear only when the worker starts on the target platform.
RUN --mount=type=secret,id=ca --mount=type=cache,id=${CACHE_ID}-uv,target=/root/.cache/uv \
    --mount=type=bind,from=base,source=/tree,target=/tree \
    case "$TARGETARCH" in \
        amd64) platform=x86_64-manylinux_2_28 ;; \
        arm64) platform=aarch64-manylinux_2_28 ;; \
        *) echo "unknown architecture '$TARGETARCH': use amd64 or arm64" >&2; exit 1 ;; \
    esac \
 && python3 /image/requirements.py /image/poetry.lock main > /image/requirements.txt \
 && folder=/app/.venv/lib/python3.11/site-packages \
 && sh /image/fetch.sh /uv/bin/uv pip install --quiet --target "/packages$folder" \
        --python python3 --python-version 3.11 --python-platform "$platform" --link-mode copy \
        --require-hashes --no-deps --only-binary :all: -r /image/requirements.txt \
 && PYTHONHASHSEED=0 python3 -X no_debug_ranges /image/assemble.py packages "/packages$folder" "$folder" \
 && python3 /image/assemble.py verify --arch "$TARGETARCH" /tree "/packages$folder" \
 && find /packages -type d -exec touch -d @315532800 {} +


# The image without the runner's code. These layers change rarely. With Podman, xtask keeps the image of this stage,
# and later builds start from it: see xtask/core/src/build/foundation.rs. COPY copies to `/`, so that all folders come
# from the source, with their times: Podman gives a target folder the time of the build, and the layer would differ in
# each release.
FROM scratch AS foundation
COPY --from=base /tree /
# HOME is a folder that is writable for every uid, even if the root file system is read-only.
ENV PATH=/app/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SANDBOX_ROOT_DIR=/workspace \
    AGENT_RUNNER_HEALTH_FILE=/tmp/agent-runner/health.json
VOLUME /workspace
# worker/probe.py explains what the check does, and why it does not import the worker's packages.
HEALTHCHECK --interval=30s --timeout=10s --start-period=40s --retries=3 \
    CMD ["/app/.venv/bin/python", "-I", "-S", "/app/worker/probe.py"]
CMD ["python", "main.py"]
# BuildKit makes a layer of WORKDIR, so it stands before the layers that change often. Buildah
# starts a process for the working directory in every later step, so it stands after the other
# settings.
WORKDIR /app
COPY --from=packages /packages /


# Not from `scripts`: Podman would look again whether its files have changed.
FROM --platform=$BUILDPLATFORM ${PYTHON_IMAGE} AS app
COPY agent-runner /agent-runner
RUN mkdir -p /tree/app && cd /agent-runner \
 && cp -r libs/graphton/graphton libs/stigmer-stubs/stigmer_stubs worker main.py /tree/app \
 && PYTHONHASHSEED=0 python3 -S image/compile_app.py /tree/app /app


# All packages, including those for development, for the build platform.
FROM tools AS dev
ARG CACHE_ID=agent-runner PIP_INDEX_URL=
RUN --mount=type=secret,id=ca --mount=type=cache,id=${CACHE_ID}-uv,target=/root/.cache/uv \
    python3 /image/requirements.py /image/poetry.lock main dev > /image/requirements.txt \
 && python3 -m venv --without-pip /venv \
 && sh /image/fetch.sh /uv/bin/uv pip install --quiet --python /venv/bin/python --link-mode copy \
        --require-hashes --no-deps --only-binary :all: -r /image/requirements.txt


FROM dev AS check
ARG CACHE_ID=agent-runner
COPY agent-runner /agent-runner
WORKDIR /agent-runner
# All three checks run, even if one fails.
RUN --mount=type=cache,id=${CACHE_ID}-mypy,target=/agent-runner/.mypy_cache \
    status=0; \
    /venv/bin/ruff check . || status=1; \
    /venv/bin/ruff format --check . || status=1; \
    /venv/bin/mypy --python-executable /venv/bin/python || status=1; \
    exit $status


# The development stigmer-server of `cargo xtask up`, with its scripted model.
FROM dev AS devserver
COPY agent-runner/libs /agent-runner/libs
COPY agent-runner/devserver /agent-runner/devserver
WORKDIR /agent-runner
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/agent-runner:/agent-runner/libs/graphton:/agent-runner/libs/stigmer-stubs
USER 1000:1000
ENTRYPOINT ["/venv/bin/python", "-m", "devserver"]


# The tools of the flavour `tools`. apt resolves, verifies and downloads packages for the target, and nothing of them
# runs. uv is the one of `tools`, for the target.
FROM tools AS agent-tools
ARG CACHE_ID=agent-runner TARGETARCH PIP_INDEX_URL= DEBIAN_MIRROR=
COPY agent-runner/image-tools /image-tools
RUN --mount=type=secret,id=ca --mount=type=cache,id=${CACHE_ID}-uv,target=/root/.cache/uv \
    --mount=type=bind,from=python,target=/python --mount=type=bind,from=base,source=/tree,target=/tree \
    case "$TARGETARCH" in \
        amd64) platform=x86_64-manylinux_2_28 ;; \
        arm64) platform=aarch64-manylinux_2_28 ;; \
        *) echo "unknown architecture '$TARGETARCH': use amd64 or arm64" >&2; exit 1 ;; \
    esac \
 && sh /image/fetch.sh /uv/bin/uv pip install --quiet --target /target-uv \
        --python python3 --python-version 3.11 --python-platform "$platform" --link-mode copy \
        --require-hashes --no-deps --only-binary :all: -r /image/uv.txt \
 && PYTHONPATH=/image sh /image/fetch.sh python3 /image-tools/debian_tools.py --arch "$TARGETARCH" \
        --mirror "$DEBIAN_MIRROR" /python /tree /target-uv/bin /agent-tools


FROM foundation AS runtime-tools
COPY --from=agent-tools /agent-tools /
COPY --from=app /tree /
USER 1000:1000


FROM foundation AS runtime
COPY --from=app /tree /
# This comes late: Buildah starts a process for the user in every later step. The user has no name here, so
# that Kubernetes can see that it is not root.
USER 1000:1000
