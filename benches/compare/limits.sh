#!/usr/bin/env bash
# What the machine can do at best: fdatasync over blocks that exist, a round trip over loopback TCP.
. "$(dirname "$0")/common.sh"
load sync --secs "$SECS" --dir "$data"
load echo --secs "$SECS" --clients 1
load echo --secs "$SECS" --clients 64
