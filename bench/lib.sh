# shellcheck shell=bash
# Measuring, and tables in Markdown.

say() { printf 'bench: %s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# bench NAME HYPERFINE_OPTION... -- COMMAND...: the times are in NAME.json.
bench() {
    local name=$1
    shift
    say "$name"
    hyperfine --style none --export-json "$WORK/$name.json" "$@" >"$WORK/$name.log" 2>&1 || {
        cat "$WORK/$name.log" >&2
        die "\`$name\` cannot be measured"
    }
}

# median NAME INDEX: of that command, in seconds.
median() { jq ".results[$2].median" "$WORK/$1.json"; }

# The median of the numbers on standard input.
middle() { sort -n | awk '{ n[NR] = $1 } END { print (n[int((NR + 1) / 2)] + n[int(NR / 2) + 1]) / 2 }'; }

calc() { awk "BEGIN { print $1 }"; }
s() { awk -v t="$1" 'BEGIN { printf "%.2f s", t }'; }
ms() { awk -v t="$1" 'BEGIN { printf "%.1f ms", t * 1000 }'; }
mb() { awk -v b="$1" 'BEGIN { printf "%.1f MB", b / 1e6 }'; }

# met VALUE LIMIT: nothing where there is no limit.
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
