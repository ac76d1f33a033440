#!/usr/bin/env bash
# Runs the demo: trains, exports, serves, records and steers. Each step is a command that you can type yourself.
# usage: deploy/demo.sh [serve]
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
home=.demo
target=127.0.0.1:${TRIMTAB_DEMO_PORT:-50051}
metrics_port=${TRIMTAB_DEMO_METRICS_PORT:-9464}
export TRIMTAB_TARGET=$target

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

mkdir -p $home
if [ ! -f $home/run/run.json ]; then
  say "Train a recommender and its sparse autoencoder on 100,000 MovieLens ratings"
  run trimtab-train --data ml-100k --recommender elsa --sae topk --out $home/run
fi
if [ ! -f $home/bundle/manifest.json ]; then
  say "Export them, with the neurons' cards and the index, as one bundle"
  run trimtab-export $home/run --out $home/bundle
fi

say "Serve the bundle"
trimtab-serve --bundle $home/bundle --data-dir $home/data --listen "$target" --metrics-port "$metrics_port" \
  2>$home/server.log &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
trimtab status --wait 120 >$home/status.txt 2>&1 &
# Waits until the server answers, or exits because it cannot start.
if ! wait -n $server $! || ! kill -0 $server; then
  tail -n 5 $home/server.log $home/status.txt
  exit 1
fi
cat $home/status.txt

if [ ! -f $home/data/recorded ]; then
  say "Record the data set's ratings, so that the server knows its users"
  run trimtab record --from .venv/lib/python3*/site-packages/recbole/dataset_example/ml-100k/ml-100k.inter
  touch $home/data/recorded
fi

if [ "${1:-}" = serve ]; then
  say "Serving on $target, metrics on http://127.0.0.1:$metrics_port/metrics. Three commands to try next, in another terminal:"
  cat <<EOF

    .venv/bin/trimtab recommend --user 42 --n 10 --steer "Film-Noir=+1" --unsteered --explain
    .venv/bin/trimtab concepts search noir
    .venv/bin/trimtab user 42

Ctrl-C stops the server.
EOF
  wait $server
  exit
fi

say "Who is user 42?"
run trimtab user 42 --n 8
say "The list, and the same list with more Film-Noir"
run trimtab recommend --user 42 --n 10 --steer "Film-Noir=+2" --unsteered --explain --report
say "Stopped. \`make serve\` keeps the server running."
