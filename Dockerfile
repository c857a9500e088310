# Two images from one file: `tenured` (servers, hosts, operator) and `sdk` (what users' images start from, or `pip install`).
# Where no image registry is reached, BASE_IMAGE is any image with Python 3.11+ as python3 (tools/k8s/baseimage.py makes one).
# The secrets are optional: pip's configuration and certificates on machines that need them; they are in no layer.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS python
# The base has no compiled modules, and containers have a read-only root: without this each start compiles the library.
RUN python3 -m compileall -q -x '/(test|tests|idlelib|site-packages|dist-packages)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM python AS wheel
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /build && /build/bin/pip install --no-cache-dir hatchling
COPY . /src
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation -w /wheels /src

# What changes rarely is installed before what changes often: third-party packages have a layer of their own, which only a
# change of the requirements invalidates.
FROM python AS requirements
COPY pyproject.toml tools/requirements.py /src/
RUN python3 /src/requirements.py /src/pyproject.toml >/sdk.txt && \
    python3 /src/requirements.py /src/pyproject.toml daemon postgres operator >/tenured.txt

FROM python AS sdk-build
COPY --from=requirements /sdk.txt /requirements.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/tenure && /opt/tenure/bin/pip install --no-cache-dir -r /requirements.txt
COPY --from=wheel /wheels /wheels
RUN /opt/tenure/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python AS tenured-build
COPY --from=requirements /tenured.txt /requirements.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/tenure && /opt/tenure/bin/pip install --no-cache-dir -r /requirements.txt
COPY --from=wheel /wheels /wheels
RUN /opt/tenure/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl && \
    /opt/tenure/bin/pip uninstall --yes pip

FROM python AS sdk
COPY --from=sdk-build /opt/tenure /opt/tenure
ENV PATH=/opt/tenure/bin:$PATH PYTHONUNBUFFERED=1
CMD ["python", "-m", "tenure.worker"]

FROM python AS tenured
COPY --from=tenured-build /opt/tenure /opt/tenure
ENV PATH=/opt/tenure/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["tenured"]
