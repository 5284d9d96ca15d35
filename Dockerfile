# docker build -t rookery:local .
# The dependencies are a layer of their own (cargo-chef), built anew only when Cargo.lock changes. The
# web client is part of the binary. Nothing newer than Docker 20.10 is needed, and no BuildKit.
FROM rust:1.95-slim-bookworm AS chef
# make for the allocator, cmake for the cryptography behind TLS, in whatever patch level the base has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake make \
    && rm -rf /var/lib/apt/lists/*
# The image has the right compiler; rust-toolchain.toml would fetch clippy and rustfmt as well.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN cargo install cargo-chef --version 0.1.78 --locked
WORKDIR /src

FROM chef AS plan
COPY . .
# Of the whole workspace: a recipe of one program does not fit Cargo.lock, and --locked refuses it below.
RUN cargo chef prepare --recipe-path /recipe.json

FROM chef AS build
COPY --from=plan /recipe.json /recipe.json
RUN cargo chef cook --release --locked --recipe-path /recipe.json --bin rookery
COPY . .
# Function names stay, for what a panic writes; where each line is would be a hundred megabytes.
RUN cargo build --release --locked --bin rookery \
    && strip --strip-debug -o /rookery target/release/rookery \
    && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Rookery" \
      org.opencontainers.image.description="A self-hosted chat server that scales out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /rookery /usr/local/bin/rookery
COPY --from=build --chown=65532:65532 /data /data
# The public port must be reachable from outside the container; the operations port too, by probes.
ENV LISTEN_ADDR=0.0.0.0:8080 OPS_ADDR=0.0.0.0:9090 DATA_DIR=/data LOG_FORMAT=json
USER 65532:65532
# Only a single node with SQLite writes here; the rest of the image may be read-only.
VOLUME /data
EXPOSE 8080 9090
# There is no shell or curl in this image: the binary asks its own operations port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["/usr/local/bin/rookery", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rookery"]
CMD ["serve"]
