#!/usr/bin/env bash
# Every fuzz target of the tree for $1 each, with the other arguments for go test.
# What they find is kept in testdata/fuzz, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
shift
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Go up to 1.26 may tell the end of the time as a failure, on a busy machine
# (golang/go#75804). A failure of the target's own comes with the input.
ended() {
  grep -A1 '^--- FAIL: Fuzz' "$out" | tail -n 1 | grep -qx '    context deadline exceeded' &&
    ! grep -q 'Failing input written' "$out"
}

targets() {
  git grep -h -o '^func Fuzz[A-Za-z0-9]*(' -- "$1" | sed 's/^func \(.*\)($/\1/'
}

git grep -l '^func Fuzz' -- '*_test.go' | while read -r file; do
  dir=$(dirname "$file")
  targets "$file" | while read -r target; do
    echo "$dir $target"
    # The default is a minute for each input that is new, which one that waits uses up.
    if ! "${GO:-go}" test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$@" 2>&1 </dev/null | tee "$out"; then
      ended || exit 1
      echo "$dir $target: the time is over, nothing was found"
    fi
  done
done
