#!/bin/sh
# A test of a script that uses audiocli. Run it with: audiocli mock --fault 429:1,retry-after=0 -- sh check-speech.sh
set -eu

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

# The first request is refused with 429, so audiocli has to send it again.
audiocli speak "The build is green." -o "$directory/green.mp3" --json >"$directory/result.json"
test -s "$directory/green.mp3"
grep -q '"attempts": 2' "$directory/result.json"

audiocli transcribe "$directory/green.mp3" -o "$directory/green.txt"
grep -q "quick brown fox" "$directory/green.txt"

# The ledger of the mock gateway has these three requests and nothing else.
test "$(audiocli usage list --json | wc -l)" -eq 3
echo "all checks passed"
