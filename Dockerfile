# The image for people with a container engine: the same files that `make image` packs without one.
#   docker build --tag chatelaine .
#   docker build --tag chatelaine-evaluation --build-arg FLAVOUR=--evaluation .   (with SoftHSM and swtpm)
FROM debian:bookworm AS build
ARG FLAVOUR=
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      python3-venv python3-dev libtss2-dev pkg-config gcc libc6-dev ca-certificates
WORKDIR /source
COPY requirements-build.lock ./
RUN python3 -m venv /tools && /tools/bin/pip install --require-hashes -r requirements-build.lock
COPY . .
RUN /tools/bin/python -m tools.image --root /image $FLAVOUR

FROM scratch
COPY --from=build /image /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/chatelaine"]
