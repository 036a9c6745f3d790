#!/usr/bin/env bash
# Cached hits of 1 KiB beside nginx, in one run:   bash bench/hits.sh [ROUNDS]
# Each server is pinned to core 0 with one thread, wrk (64 connections) to core 1; rounds are interleaved. Needs root
# and Debian's nginx and wrk, two cores, and ports 9000, 9101, 8190 and 8191 of loopback. Quote ratios: machines are noisy.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
go build -o "$work/nearzone" ./cmd/nearzone
mkdir "$work/www" && head -c 1024 /dev/zero | tr '\0' x >"$work/www/1k" && chmod -R a+rX "$work"
cat >"$work/nginx.conf" <<CONF
user root; daemon off; worker_processes 1; pid $work/nginx.pid; error_log $work/error.log;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; keepalive_requests 1000000000; open_file_cache max=10000 inactive=60s;
  proxy_cache_path $work/cache levels=1:2 keys_zone=hot:64m use_temp_path=off;
  server { listen 127.0.0.1:9000; root $work/www; add_header Cache-Control max-age=3600; }
  server { listen 127.0.0.1:9101; location / { proxy_pass http://127.0.0.1:9000; proxy_cache hot; } }
}
CONF
taskset -c 0 nginx -c "$work/nginx.conf" 2>/dev/null &
GOMAXPROCS=1 NEARZONE_DATA=$work/data taskset -c 0 "$work/nearzone" run examples/bench.yaml 2>"$work/nearzone.log" &
sleep 2
rate() { taskset -c 1 wrk -t1 -c64 -d3s "$1" | awk '/Requests\/sec/ {print $2}'; }
for url in http://127.0.0.1:8190/1k http://127.0.0.1:9101/1k; do curl -sfo /dev/null "$url"; rate "$url" >/dev/null; done
for _ in $(seq "$rounds"); do
  echo "$(rate http://127.0.0.1:8190/1k) $(rate http://127.0.0.1:9101/1k)"
done | tee "$work/rounds" | awk '{printf "nearzone %d/s  nginx %d/s  ratio %.2f\n", $1, $2, $1/$2}'
awk '{print $1/$2}' "$work/rounds" | sort -n | awk '{r[NR]=$1} END {printf "median ratio nearzone/nginx: %.2f over %d rounds\n", r[int((NR+1)/2)], NR}'
