# Sourced by every case.sh. Needs PARITYALIGN=/path/to/parityalign; KEEP=1 keeps the working folder and shows the output.
: "${PARITYALIGN:?set PARITYALIGN=/path/to/parityalign}"
HERE="$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)"
LIB="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PY="${PYTHON:-$(dirname "$PARITYALIGN")/python}"
NAME="$(basename "$HERE")"
W="$(mktemp -d)"
SERVER=""
unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy NO_PROXY no_proxy SSL_CERT_FILE SSL_CERT_DIR PARITYALIGN_API_KEY
export HF_HUB_OFFLINE=1 HF_HOME="$W/hf" TOKENIZERS_PARALLELISM=false
tidy() {
  [ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null && wait "$SERVER" 2>/dev/null
  if [ -n "${KEEP:-}" ]; then echo "kept: $W" >&2; else rm -rf "$W"; fi
}
trap tidy EXIT

# serve [SCENARIO.py]: starts the server; URL is its base with /v1, BASE without; what it was asked: $W/port.log
serve() {
  "$PY" "$LIB/server.py" "${1:-$HERE/scenario.py}" "$W/port" >"$W/server.out" 2>&1 &
  SERVER=$!
  for _ in $(seq 100); do [ -f "$W/port" ] && break; sleep 0.1; done
  BASE="http://127.0.0.1:$(cat "$W/port")"
  URL="$BASE/v1"
}

# configure TEACHER [more yaml]: a run folder $W/run with its run.yaml, on the six pictures of _lib/pool
# STUDENT, TASK, TASKMORE, POOL, TEST and SERVERSETTINGS change it
configure() {
  mkdir -p "$W/run"
  cat >"$W/run/run.yaml" <<Y
run: .
teacher: "$1"
student: "${STUDENT:-embedded:student}"
tasks:
  ${TASK:-textvqa}: {images: "${POOL:-$LIB/pool}"${TEST:+, test: "$TEST"}${TASKMORE:+, $TASKMORE}}
annotate: {pairs_per_image: 1, max_new_tokens: 32}
identify: {max_new_tokens: 8}
level: {epochs: 1, batch_size: 8, replay: 0.5}
evaluate: {max_new_tokens: 8, resamples: 100, speed_questions: 0, forgotten_pairs: 0}
server: ${SERVERSETTINGS:-{backoff: 0.01, max_attempts: 3, timeout: 20\}}
${2:-}
Y
}

# go ARGUMENTS...: runs the product; its status is RC, what it said lies in $W/out and $W/err
go() {
  timeout "${LIMIT:-300}" nice "$PARITYALIGN" "$@" >"$W/out" 2>"$W/err"
  RC=$?
  [ -n "${KEEP:-}" ] && { echo "--- parityalign $* -> $RC"; cat "$W/out" "$W/err"; } >&2
  return 0
}

# stages RUN STAGE...: the stages one after another, up to the first that fails
stages() {
  local run="$1" stage
  shift
  : >"$W/all"
  for stage in "$@"; do
    go "$stage" "$run"
    cat "$W/out" "$W/err" >>"$W/all"
    [ "$RC" = 0 ] || break
  done
  cp "$W/all" "$W/out"
  : >"$W/err"
}

# column FILE.jsonl KEY: the values under a key, one a line
column() {
  [ -f "$1" ] || return 0
  "$PY" -c '
import json, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
for line in open(sys.argv[1], encoding="utf-8"):
    print(json.loads(line).get(sys.argv[2]))' "$1" "$2"
}
pairs() { column "$W/run/pairs/pairs.jsonl" "$1"; }
verdicts() { column "$W/run/verdicts/verdicts.jsonl" "$1"; }
model_copy() { # model_copy student|teacher FOLDER
  cp -r "$("$PY" -c 'from parityalign.core import EMBEDDED_MODELS; print(EMBEDDED_MODELS)')/$1" "$2"
}
asked() { grep -c "${1:-POST}" "$W/port.log" 2>/dev/null; }
said() { grep -qiE -- "$1" "$W/out" "$W/err"; }
message() { grep -h -A2 '^parityalign:' "$W/out" "$W/err" | tr '\n' ' ' | cut -c1-260; }
last_line() { cat "$W/out" "$W/err" | tail -n 1 | cut -c1-200; }
traceback() { grep -q "Traceback (most recent call last)" "$W/out" "$W/err"; }
pass() { echo "ok   $NAME: $*"; exit 0; }
fail() { echo "FAIL $NAME: $*"; exit 1; }
