#!/bin/sh
# Transcribe the recordings below a directory, within the spending limits of `audiocli budget`.
# Usage: nightly.sh DIRECTORY. The exit code is that of audiocli; the log is next to the recordings.
set -u

log="$1/nightly-$(date +%F).jsonl"
code=0
audiocli transcribe "$1" -R -f txt,srt --tag nightly --json >>"$log" 2>&1 || code=$?
case $code in
    0) ;;
    3) echo "nightly: some recordings failed, see $log" >&2 ;;
    5) echo "nightly: the spending limit is reached; the rest follows tomorrow" >&2 ;;
    *) echo "nightly: exit code $code, see $log" >&2 ;;
esac
exit "$code"
