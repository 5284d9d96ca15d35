# syntax=docker/dockerfile:1.7
FROM rust:1.95-slim-bookworm AS build
# make for the allocator, cmake for the cryptography behind TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake make \
    && rm -rf /var/lib/apt/lists/*
# The image has the right compiler; rust-toolchain.toml would fetch clippy and rustfmt as well.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# Caches of the builder, not layers: the binary is copied out while the target folder is mounted.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin rookery \
    && cp target/release/rookery /rookery \
    && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /rookery /usr/local/bin/rookery
COPY --from=build --chown=65532:65532 /data /data
# The public port must be reachable from outside the container; the operations port too, by probes.
ENV LISTEN_ADDR=0.0.0.0:8080 OPS_ADDR=0.0.0.0:9090 DATA_DIR=/data LOG_FORMAT=json
USER 65532:65532
VOLUME /data
EXPOSE 8080 9090
# There is no shell or curl in this image: the binary asks its own operations port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["/usr/local/bin/rookery", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rookery"]
CMD ["serve"]
