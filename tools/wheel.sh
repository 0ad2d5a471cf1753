#!/usr/bin/env bash
# Builds the sdist and the wheel into dist/, from a copy of the sources without anything that earlier builds left, checks
# what an index page would show, and builds the sdist's wheel, which has to be the same to the byte.
set -euo pipefail
cd "$(dirname "$0")/.."
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT

mkdir "$away/sources"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$away/sources"
"${PYTHON:-python3}" -m venv "$away/tools"
"$away/tools/bin/python" -m pip install --quiet build twine
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

build() { "$away/tools/bin/python" -m build "$@" >"$away/log" 2>&1 || { cat "$away/log" >&2; exit 1; }; }

build --sdist --wheel --outdir "$away/dist" "$away/sources"
"$away/tools/bin/twine" check --strict "$away"/dist/*
tar -xzf "$away"/dist/*.tar.gz -C "$away"
build --wheel --outdir "$away/again" "$away"/parityalign-*/
cmp "$away"/dist/*.whl "$away"/again/*.whl
echo "the sdist builds the same wheel"
rm -rf dist
mv "$away/dist" dist
ls -l dist
