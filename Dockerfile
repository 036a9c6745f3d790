# syntax=docker/dockerfile:1
# docker build -t nearzone .
# The final image is the static binary, CA roots and nothing else.
FROM golang:1.26 AS build
RUN apt-get update && apt-get install -y --no-install-recommends libcap2-bin ca-certificates
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/usr/bin/nearzone ./cmd/nearzone \
 && setcap cap_net_bind_service+ep /out/usr/bin/nearzone \
 && install -d -o 65532 -g 65532 /out/var/lib/nearzone /out/var/cache/nearzone && install -d -m 1777 /out/tmp \
 && install -D /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
 && install -D examples/quickstart.yaml /out/etc/nearzone/nearzone.yaml

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENV NEARZONE_DATA=/var/lib/nearzone
EXPOSE 80 443 53/udp 53/tcp 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/usr/bin/nearzone", "healthcheck"]
ENTRYPOINT ["/usr/bin/nearzone"]
CMD ["run", "/etc/nearzone/nearzone.yaml"]
