# shellcheck shell=bash
# Type-checks xtask and its tests for platforms that this machine cannot run: macOS, and Linux on arm64.
# rustc has no compiled standard library for them here, so it checks the library's sources too.

ZIG_VERSION=0.13.0
ZIG=$CACHE/zig-$ZIG_VERSION
PLATFORMS_DATA=$CACHE/platforms

check_platforms() {
    local target
    need_root sid
    install_zig
    running platforms || start_platforms
    for target in aarch64-apple-darwin aarch64-unknown-linux-gnu; do
        check_target "$target"
    done
    stop platforms
}

# Zig is a C compiler for all platforms, with their headers. ring has C code, and cargo compiles it even
# when it only checks types.
install_zig() {
    [[ -e $ZIG/done ]] && return
    rm -rf "$ZIG"
    python3.11 -m venv "$ZIG"
    "$ZIG/bin/pip" install --quiet "ziglang==$ZIG_VERSION"
    ln -s "$ZIG"/lib/python3.11/site-packages/ziglang "$ZIG/ziglang"
    touch "$ZIG/done"
}

# The paths inside the root are always the same, so that cargo reuses what it has compiled.
# shellcheck disable=SC2153 # .ci/run sets ROOT
start_platforms() {
    local root=$ROOTS/sid/root
    mkdir -p "$PLATFORMS_DATA"/{cargo,target} "$root"/{src,cache,zig}
    write_zig_cc aarch64-apple-darwin aarch64-macos
    write_zig_cc aarch64-unknown-linux-gnu aarch64-linux-gnu
    enter_root platforms sid "
        mount --bind $ROOT \$root/src
        mount --bind $PLATFORMS_DATA \$root/cache
        mount --bind $ZIG/ziglang/ \$root/zig"
    wait_for 20 in_platforms test -e /src/Cargo.toml || die "cannot enter the Debian sid in $root"
}

in_platforms() {
    local pid
    read -r pid _ <"$STATE/pids/platforms"
    nice -n 19 nsenter --target "$pid" --mount --root --wdns=/src env -i PATH=/usr/local/bin:/usr/bin:/bin \
        HOME=/cache CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS="-D warnings" "$@"
}

check_target() {
    in_platforms "CC_${1//-/_}=zig-cc-$1" \
        cargo check -Zbuild-std=std,panic_abort,test --target "$1" --locked --all-targets
}

# write_zig_cc TARGET ZIG_TARGET: writes a C compiler that leaves out the crate cc's options for the
# platform. They are clang's, and Zig names platforms differently.
write_zig_cc() {
    write_program "$ROOTS/sid/root/usr/local/bin/zig-cc-$1" <<EOF
#!/bin/sh
for argument; do
    shift
    case \$argument in
    --target=* | -mmacosx-version-min=* | -gfull) ;;
    *) set -- "\$@" "\$argument" ;;
    esac
done
exec /zig/zig cc -target $2 "\$@"
EOF
}
