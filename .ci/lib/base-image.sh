# shellcheck shell=bash
# Builds replacements for docker.io/library/python:3.11-slim, for machines that cannot pull it.
#
#   3.11-slim         amd64 and arm64, made like the official image: Debian 13 slim, and Python compiled
#                     from its source, in /usr/local, with a shared libpython and pip.
#   3.11-slim-debian  amd64, from Debian 12's packages: Python in /usr, links in /usr/local/bin. This is
#                     another layout that a build must support.
#
# Python's source comes from Debian 12, whose 3.11.2 is the newest 3.11 that a package mirror has. The
# official image differs in four ways. It is optimized with a profile (--enable-optimizations
# --with-lto), which takes many minutes. It has tkinter, which needs X11. It has Berkeley DB, whose
# headers (libdb-dev) can be installed for only one architecture. For arm64 it is compiled with
# -mbranch-protection=standard, whose signed addresses QEMU 7.2 computes so slowly that a program takes
# 13 times as long.

BASE_REPOSITORY=$REGISTRY/library/python
BASE_PYTHON=3.11.2

# The packages of the official image: three for every program, and the libraries that Python is linked
# with.
SLIM_PACKAGES=ca-certificates,netbase,tzdata
SLIM_PACKAGES+=,libbz2-1.0,libffi8,libgdbm6t64,libgdbm-compat4t64,liblzma5,libncursesw6
SLIM_PACKAGES+=,libreadline8t64,libsqlite3-0,libssl3t64,libuuid1,zlib1g
# Compilers for both architectures.
COMPILER_PACKAGES=gcc,libc6-dev,make,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross
DEVELOPMENT_LIBRARIES=(libbz2-dev libffi-dev libgdbm-dev libgdbm-compat-dev liblzma-dev
    libncurses-dev libreadline-dev libsqlite3-dev libssl-dev uuid-dev zlib1g-dev)
# The versions in the official image.
PIP_PACKAGES=(pip==24.0 setuptools==79.0.1 wheel==0.45.1)
DEBIAN_LAYOUT_PACKAGES=ca-certificates,netbase,tzdata,python3.11,python3.11-venv,python3-venv

push_base_images() {
    local key folder
    key=$(sha256sum "$LIB/base-image.sh" | cut -c 1-12)
    folder=$CACHE/base/$key
    if [[ -e $DATA/registry/base-$key ]] && has_tag 3.11-slim && has_tag 3.11-slim-debian; then
        return
    fi
    [[ -e $folder/done ]] || make_base_tarballs "$folder"
    say "pushing the base images"
    push_base "$folder/amd64.tar.gz" linux/amd64 3.11-slim-amd64
    push_base "$folder/arm64.tar.gz" linux/arm64 3.11-slim-arm64
    push_base "$folder/debian.tar.gz" linux/amd64 3.11-slim-debian
    quietly "$STATE/log/base-push.log" docker -H "unix://$DOCKER_SOCKET" \
        buildx imagetools create --builder default -t "$BASE_REPOSITORY:3.11-slim" \
        "$BASE_REPOSITORY:3.11-slim-amd64" "$BASE_REPOSITORY:3.11-slim-arm64"
    touch "$DATA/registry/base-$key"
}

has_tag() {
    curl -fsS -o /dev/null --head \
        -H 'Accept: application/vnd.docker.distribution.manifest.list.v2+json' \
        -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        "http://$REGISTRY/v2/library/python/manifests/$1" 2>/dev/null
}

push_base() {
    local tarball=$1 platform=$2 image=$BASE_REPOSITORY:$3
    # The image is removed from the engine below, so that the tests find an engine without it.
    quietly "$STATE/log/base-push.log" docker -H "unix://$DOCKER_SOCKET" import \
        --platform "$platform" \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV LANG=C.UTF-8' \
        --change "ENV PYTHON_VERSION=$BASE_PYTHON" \
        --change 'CMD ["python3"]' \
        "$tarball" "$image"
    quietly "$STATE/log/base-push.log" docker -H "unix://$DOCKER_SOCKET" push "$image"
    quietly "$STATE/log/base-push.log" docker -H "unix://$DOCKER_SOCKET" rmi "$image"
}

make_base_tarballs() {
    local folder=$1 work
    say "building the base images (takes several minutes, once)"
    # Left over from a run that was interrupted.
    rm -rf "$DATA"/base.??????
    work=$(mktemp -d "$DATA/base.XXXXXX")
    rm -rf "$CACHE/base"
    mkdir -p "$folder"

    # The other root file systems are unpacked while Python is compiled.
    unpack_roots "$work" &
    local roots=$!
    fetch_python_source "$work"
    make_build_root "$work"
    compile_python "$work" amd64
    compile_python "$work" arm64
    fetch_pip "$work"
    wait "$roots"

    make_official_amd64 "$work"
    make_official_arm64 "$work"
    make_debian_layout "$work/debian"

    pack "$work/amd64" "$folder/amd64.tar.gz" &
    local first=$!
    pack "$work/arm64" "$folder/arm64.tar.gz"
    pack "$work/debian" "$folder/debian.tar.gz"
    wait "$first"
    rm -rf "$work"
    touch "$folder/done"
}

unpack_roots() {
    local work=$1
    bootstrap "$work" trixie amd64 "$work/amd64" "$SLIM_PACKAGES"
    # For arm64, only download and unpack: the second stage would take minutes under emulation.
    bootstrap "$work" trixie arm64 "$work/arm64" "$SLIM_PACKAGES" --foreign
    bootstrap "$work" bookworm amd64 "$work/debian" "$DEBIAN_LAYOUT_PACKAGES"
}

bootstrap() {
    local work=$1 suite=$2 arch=$3 target=$4 packages=$5
    shift 5
    local name
    name=$(basename "$target")
    mkdir -p "$work/debs-$name"
    quietly "$STATE/log/base-$name.log" debootstrap "$@" --variant=minbase \
        --arch="$arch" --keyring="$DEBIAN_KEYRING" --cache-dir="$work/debs-$name" \
        --include="$packages" "$suite" "$target" "$DEBIAN_MIRROR"
}

# Downloads the upstream source, as Debian distributes it. apt verifies it.
fetch_python_source() {
    local work=$1
    mkdir -p "$work/source/lists/partial" "$work/python"
    echo "deb-src [signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR bookworm main" >"$work/source/list"
    local apt=(apt-get -o "Dir::Etc::sourcelist=$work/source/list"
        -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/source/lists"
        -o APT::Sandbox::User=root)
    quietly "$STATE/log/base-source.log" "${apt[@]}" update
    (
        cd "$work/source" # apt downloads to the working folder
        quietly "$STATE/log/base-source.log" "${apt[@]}" source --download-only python3.11
        tar -xzf "python3.11_$BASE_PYTHON.orig.tar.gz" --strip-components=1 -C "$work/python"
    )
}

# Unpacks a Debian 13 with compilers for both architectures, and the source in /source.
make_build_root() {
    local work=$1 root=$1/build package both=()
    bootstrap "$work" trixie amd64 "$root" "$COMPILER_PACKAGES"
    cp -L /etc/resolv.conf "$root/etc/"
    for package in "${DEVELOPMENT_LIBRARIES[@]}"; do both+=("$package:amd64" "$package:arm64"); done
    quietly "$STATE/log/base-build-root.log" chroot "$root" dpkg --add-architecture arm64
    quietly "$STATE/log/base-build-root.log" chroot "$root" apt-get update
    DEBIAN_FRONTEND=noninteractive quietly "$STATE/log/base-build-root.log" chroot "$root" \
        apt-get install -y --no-install-recommends "${both[@]}"
    mv "$work/python" "$root/source"
}

# compile_python WORK ARCH: compiles Python in the build root, and installs it in /install-ARCH.
# arm64 is cross-compiled, with the help of amd64's Python.
compile_python() {
    local work=$1 arch=$2
    # --mount: the mounts end with the command, so deleting the root cannot delete what is mounted.
    # configure needs /dev/shm, to find out whether semaphores work.
    # shellcheck disable=SC2016 # expanded by the inner shells
    quietly "$STATE/log/base-compile-$arch.log" unshare --mount --propagation private \
        bash -euo pipefail -c '
            mount --rbind /dev "$1/dev"
            mount --rbind /proc "$1/proc"
            exec chroot "$1" env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
                bash -euxo pipefail -c "$2" compile "$3"' compile "$work/build" "$COMPILE_PYTHON" "$arch"
}

# shellcheck disable=SC2016 # expanded by the shell in the build root
COMPILE_PYTHON='
    mkdir "/build-$1" && cd "/build-$1"
    # -O2 and what follows are the flags of the official build, without the debug information that it
    # strips.
    flags="-O2 -g0 -fstack-protector-strong -fstack-clash-protection -Wformat -Werror=format-security"
    flags+=" -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer"
    case $1 in
    amd64)
        flags+=" -fcf-protection"
        options=(--build=x86_64-linux-gnu)
        ;;
    arm64)
        # The answers to the checks that would have to run an arm64 program.
        options=(--build=x86_64-linux-gnu --host=aarch64-linux-gnu
            --with-build-python=/usr/local/bin/python3.11 --enable-ipv6
            ac_cv_file__dev_ptmx=yes ac_cv_file__dev_ptc=no ac_cv_working_tzset=yes)
        ;;
    esac
    /source/configure "${options[@]}" --enable-loadable-sqlite-extensions \
        --enable-option-checking=fatal --enable-shared --with-ensurepip
    make -j"$(nproc)" EXTRA_CFLAGS="$flags" LDFLAGS=-Wl,--strip-all
    rm python
    make EXTRA_CFLAGS="$flags" LDFLAGS="-Wl,--strip-all,-rpath=\\\$\$ORIGIN/../lib" python
    # The official versions of pip and setuptools are installed later.
    make install DESTDIR="/install-$1" EXTRA_CFLAGS="$flags" LDFLAGS=-Wl,--strip-all ENSUREPIP=no
    if [[ $1 == amd64 ]]; then
        cp -a /install-amd64/. /
        ldconfig
    fi
'

# Runs pip from its own wheel, so that this machine does not need pip.
fetch_pip() {
    local work=$1 wheel
    wheel=$(echo "$work"/build/source/Lib/ensurepip/_bundled/pip-*.whl)
    quietly "$STATE/log/base-pip.log" python3 "$wheel/pip" download --no-deps \
        --only-binary :all: --dest "$work/wheels" "${PIP_PACKAGES[@]}"
}

make_official_amd64() {
    local work=$1 root=$1/amd64 missing
    add_python "$work" amd64
    mkdir "$root/tmp/wheels"
    cp "$work"/wheels/*.whl "$root/tmp/wheels"
    chroot "$root" ldconfig
    # shellcheck disable=SC2016 # expanded by the inner shell
    quietly "$STATE/log/base-pip.log" chroot "$root" \
        env -i PATH=/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 \
        sh -c 'cd /tmp/wheels && python3 "$(echo pip-*.whl)/pip" install --no-index --no-compile \
            --no-cache-dir --root-user-action=ignore *.whl'
    rm -r "$root/tmp/wheels"
    missing=$(chroot "$root" find /usr/local -name '*.so' -exec ldd {} + | grep 'not found') || true
    [[ -z $missing ]] || die "SLIM_PACKAGES in .ci/lib/base-image.sh has no package for: $missing"
    trim "$root"
}

# The packages are unpacked and not installed. The files that their scripts would create are copied
# from the amd64 image if they do not depend on the architecture.
make_official_arm64() {
    local work=$1 root=$1/arm64 deb
    rm -rf "$root/debootstrap" "$root"/var/lib/dpkg/{status,info}
    # /proc is a link to itself, which the second stage would replace.
    rm -f "$root/proc"
    mkdir -p "$root/proc" "$root/var/lib/dpkg/info"
    echo 1 >"$root/var/lib/dpkg/info/format"
    for deb in "$work"/debs-arm64/*.deb; do
        unpack_deb "$deb" "$root"
        register_deb "$deb" "$root"
    done
    copy_configured "$work/amd64" "$root"
    add_python "$work" arm64
    cp -a "$work"/amd64/usr/local/lib/python3.11/site-packages "$root/usr/local/lib/python3.11/"
    cp -an "$work"/amd64/usr/local/bin/. "$root/usr/local/bin/"
    chroot "$root" ldconfig
    trim "$root"
}

unpack_deb() { dpkg-deb --fsys-tarfile "$1" | tar -xpf - -C "$2" --keep-directory-symlink; }

# Adds a package to dpkg's database, for dpkg and apt.
register_deb() {
    local deb=$1 root=$2 package file
    package=$(dpkg-deb -f "$deb" Package)
    file=$package
    [[ $(dpkg-deb -f "$deb" Multi-Arch) != same ]] || file=$package:arm64
    {
        dpkg-deb -f "$deb" | sed '/^Package:/a Status: install ok installed'
        echo
    } >>"$root/var/lib/dpkg/status"
    dpkg-deb --fsys-tarfile "$deb" | tar -tf - | sed -e 's/^\.//' -e 's/\/$//' -e 's/^$/\/./' \
        >"$root/var/lib/dpkg/info/$file.list"
}

# Copies what the packages' scripts created: users, certificates, alternatives, folders.
copy_configured() {
    local from=$1 to=$2
    (cd "$from" && find . \( -type d -o -type l -lname '/etc/alternatives/*' \
        -o -path './etc/*' -o -path './root/*' \) \
        ! -path '*x86_64*' ! -path './usr/local/*/*' ! -path './dev/*' ! -path './proc/*' \
        ! -path './sys/*' -print0) |
        tar -C "$from" --null --no-recursion -T - -c |
        tar -C "$to" --skip-old-files --keep-directory-symlink -xp
}

# add_python WORK ARCH: copies the compiled Python, without the files that the official image removes.
add_python() {
    local work=$1 arch=$2 name root=$1/$2/usr/local
    cp -a "$work/build/install-$arch/usr/local/." "$root/"
    for name in idle3 pydoc3 python3 python3-config; do
        ln -s "$name" "$root/bin/${name/3/}"
    done
    find "$root" -depth \
        \( -type d \( -name test -o -name tests -o -name idle_test -o -name __pycache__ \) \
        -o -type f \( -name '*.pyc' -o -name 'libpython*.a' \) \) -exec rm -rf {} +
}

make_debian_layout() {
    local root=$1 name
    for name in python python3 python3.11; do
        ln -s /usr/bin/python3.11 "$root/usr/local/bin/$name"
    done
    trim "$root"
}

# Removes the files that Debian's slim images do not have.
trim() {
    local root=$1
    find "$root/usr/share/doc" -depth -type f ! -name copyright -delete
    find "$root/usr/share/doc" -depth -type d -empty -delete
    rm -rf "$root"/usr/share/{man,info,groff,lintian,linda,locale}/* \
        "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/lib/apt/lists/* \
        "$root"/var/log/* "$root"/tmp/* "$root"/etc/resolv.conf "$root"/etc/hostname
    # Do not copy this machine's proxy settings for apt.
    rm -f "$root"/etc/apt/apt.conf.d/*proxy*
}

pack() {
    tar --numeric-owner --sort=name -C "$1" --exclude='./dev/*' --exclude='./proc/*' \
        --exclude='./sys/*' -c . | gzip -6 >"$2"
}
