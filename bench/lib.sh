# shellcheck shell=bash
# Functions for measuring and for tables in Markdown.

say() { printf 'bench: %s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# bench NAME HYPERFINE_OPTION... -- COMMAND...: measures commands and writes the times to NAME.json.
bench() {
    local name=$1
    shift
    say "$name"
    hyperfine --style none --export-json "$WORK/$name.json" "$@" >"$WORK/$name.log" 2>&1 || {
        cat "$WORK/$name.log" >&2
        die "measuring \`$name\` failed"
    }
}

# median NAME INDEX: prints the median time of a command, in seconds.
median() { jq ".results[$2].median" "$WORK/$1.json"; }

# Prints the median of the numbers on standard input.
middle() { sort -n | awk '{ n[NR] = $1 } END { print (n[int((NR + 1) / 2)] + n[int(NR / 2) + 1]) / 2 }'; }

calc() { awk "BEGIN { print $1 }"; }
s() { awk -v t="$1" 'BEGIN { printf "%.2f s", t }'; }
ms() { awk -v t="$1" 'BEGIN { printf "%.1f ms", t * 1000 }'; }
mb() { awk -v b="$1" 'BEGIN { printf "%.1f MB", b / 1e6 }'; }

# met VALUE LIMIT: prints whether a value is within its limit; nothing if the limit is empty.
met() {
    [[ -n $2 ]] || return 0
    awk -v v="$1" -v l="$2" 'BEGIN { print (v <= l ? "yes" : "**no**") }'
}

# table TITLE COLUMN...
table() {
    printf '\n**%s**\n\n' "$1"
    shift
    row "$@"
    printf '|%s\n' "$(printf -- '---|%.0s' "$@")"
}

row() {
    printf '|'
    printf ' %s |' "$@"
    printf '\n'
}

print_machine() {
    local memory engine
    memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo 2>/dev/null || echo "?")
    printf '%s, %s processors, %s, %s %s\n' "$(date -u +%F)" "$(getconf _NPROCESSORS_ONLN)" \
        "$memory" "$(uname -s)" "$(uname -r)"
    for engine in "${ENGINES[@]}"; do
        printf '%s\n' "$("$engine" --version)"
    done
    printf '%s\n%s\n' "$(cargo --version)" "$(hyperfine --version)"
    printf 'load before: %s\n' "$(cut -d ' ' -f 1-3 /proc/loadavg 2>/dev/null || echo "?")"
}
