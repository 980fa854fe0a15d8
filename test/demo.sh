#!/usr/bin/env bash
# The main job on this machine: two daemons in temporary homes, a ticket from
# one to the other, a call across, a file streamed across, both checksums.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
alice=$work/alice bob=$work/bob
fastn=$PWD/bin/fastn
listener=

cleanup() {
	status=$?
	[ -z "$listener" ] || wait "$listener" 2>/dev/null || true
	for home in "$alice" "$bob"; do
		if [ -d "$home" ]; then "$fastn" --home "$home" daemon stop >/dev/null || true; fi
	done
	if [ "$status" -ne 0 ]; then
		tail -n 20 "$work"/*/fastnd.log >&2 || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*" | sed "s#$fastn#fastn#; s#$work#…#g" >&2; "$@"; }

say "two daemons, each with its own keys (loopback only)"
for home in "$alice" "$bob"; do
	mkdir -m 700 "$home"
	printf '[p2p]\nlisten = ["127.0.0.1"]\n' >"$home/fastn.toml"
	run "$fastn" --home "$home" daemon start
done

say "bob invites alice; alice adds bob"
ticket=$("$fastn" --home "$bob" invite --for alice 2>/dev/null)
printf '%s' "$ticket" | run "$fastn" --home "$alice" contact add bob -

say "alice calls Echo on bob's machine"
run "$fastn" --home "$alice" call bob Echo '{"message":"hello"}'

say "bob lets alice use a protocol of his own; alice streams a file to it"
head -c 8388608 /dev/urandom >"$work/sent"
run "$fastn" --home "$bob" grant add alice upload
"$fastn" --home "$bob" listen upload </dev/null >"$work/received" &
listener=$!
# The listener says when it is there.
for _ in $(seq 100); do
	"$fastn" --home "$bob" id list --json | grep -q '"upload"' && break
	sleep 0.05
done
run "$fastn" --home "$alice" stream bob upload <"$work/sent" >/dev/null
wait "$listener"
listener=
sent=$(sha256sum <"$work/sent")
received=$(sha256sum <"$work/received")
printf 'sent     %s\nreceived %s\n' "$sent" "$received"
[ "$sent" = "$received" ]

say "the path between them"
run "$fastn" --home "$alice" ping bob -c 3
run "$fastn" --home "$alice" peers
echo
echo "demo: ok"
