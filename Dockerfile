# The image of `ringfence gateway` and of its webhook: one static program, no shell, no package, no root. It writes no
# file, so a container's root can be read-only.
#
#   docker build --tag ACCOUNT.dkr.ecr.REGION.amazonaws.com/PREFIX/platform/ringfence .
#
# Static against glibc, whose allocator is faster with threads than musl's. glibc looks up names without shared
# libraries since 2.34 (its NEWS); Debian 12 has 2.36.
FROM rust:1.94-bookworm AS build
WORKDIR /src
COPY . .
RUN make static

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/static/ringfence /ringfence
USER 65532:65532
ENTRYPOINT ["/ringfence"]
