# The broker in a container: built from source, run by a user without rights, on a root that is never written.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive a build, so only what changed is compiled; the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package sotto \
    && install -D -m 0755 target/release/sotto /out/sotto

FROM debian:bookworm-slim
# Push services and PostgreSQL are verified against the system's root certificates.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 sotto \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/sotto --shell /usr/sbin/nologin sotto \
    && install -d -m 0700 -o sotto -g sotto /var/lib/sotto
COPY --from=build /out/sotto /usr/local/bin/sotto
COPY deploy/ready /usr/local/bin/sotto-ready
USER 10001:10001
WORKDIR /var/lib/sotto
VOLUME /var/lib/sotto
EXPOSE 8883 8884 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["sotto-ready"]
# SIGTERM: stop accepting, say goodbye to every client, finish what was accepted.
STOPSIGNAL SIGTERM
ENTRYPOINT ["sotto"]
CMD ["serve", "--data", "/var/lib/sotto", "--mqtts", "0.0.0.0:8883", "--wss", "0.0.0.0:8884", \
     "--private", "0.0.0.0:9464"]
