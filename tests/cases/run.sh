#!/bin/bash
# Runs the cases whose path contains the first argument (all without one), two at a time. PARITYALIGN: the executable.
: "${PARITYALIGN:?set PARITYALIGN=/path/to/parityalign}"
export PARITYALIGN OMP_NUM_THREADS=1
cd "$(dirname "$0")" || exit 2
one() {
  said=$(timeout 600 bash "$1/case.sh" 2>/dev/null </dev/null); status=$?
  [ $status = 0 ] && word=ok || word=FAILED
  echo "$word $1: $(tail -1 <<<"$said")"
  return $status
}
export -f one
ls -d attacks/[0-9]* public/[0-9]* | grep -F -- "${1:-}" | xargs -P 2 -I{} bash -c 'one {}'
[ $? = 0 ] && echo "all cases pass" || { echo "some cases fail"; exit 1; }
