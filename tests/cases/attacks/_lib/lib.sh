# For attacks that need a server; the case says how it answers.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
T=$(mktemp -d); trap 'kill $SP 2>/dev/null; rm -rf "$T"' EXIT; cd "$T"

# serve [SETTINGS OF THE RUN'S SERVER] <<'P': two pictures, the server with the methods given, and a run that has done intake.
serve() {
    mkdir r pics; "$PY" -c 'from PIL import Image; [Image.effect_noise((64+9*i,64),99).convert("RGB").save(f"pics/{i}.png") for i in range(2)]'
    cat > s.py
    "$PY" "$LIB/server.py" s.py 2>/dev/null & SP=$!; while [ ! -s port ]; do sleep 0.1; done
    printf "run: .\nteacher: http://127.0.0.1:$(cat port)/v1\nstudent: embedded:student\ntasks:\n  textvqa: {images: ../pics}\nserver: {max_attempts: 2, backoff: 0.05${1:+, $1}}\n" > r/run.yaml
    "$PA" intake r >/dev/null 2>&1 </dev/null
}
