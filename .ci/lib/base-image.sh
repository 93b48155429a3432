# shellcheck shell=bash
# Builds replacements for docker.io/library/python:3.11-slim, for machines that cannot pull it.
#
#   3.11-slim         amd64 and arm64, with the layout of the official image: Debian slim, Python in
#                     /usr/local, a shared libpython, pip in site-packages.
#   3.11-slim-debian  amd64, from Debian's packages: Python in /usr, links in /usr/local/bin. This is
#                     another layout that a build must support.
#
# Only Python's short main program is compiled. The interpreter, the standard library and the
# extension modules come from Debian's packages. The few files that Debian patches for its own
# layout come from the upstream source.

BASE_REPOSITORY=$REGISTRY/library/python

# The packages of the official image other than Python.
SLIM_PACKAGES=ca-certificates,netbase,tzdata,libbz2-1.0,libdb5.3,libexpat1,libffi8,liblzma5
SLIM_PACKAGES+=,libncursesw6,libnsl2,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
PYTHON_PACKAGES=python3.11,python3.11-venv,python3-venv,libpython3.11
# The versions in the official image.
PIP_PACKAGES=(pip==24.0 setuptools==79.0.1 wheel==0.45.1)

push_base_images() {
    local key folder
    key=$(cat "$LIB/base-image.sh" "$LIB/python-main.c" | sha256sum | cut -c 1-12)
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
        --change 'ENV PYTHON_VERSION=3.11.2' \
        --change 'CMD ["python3"]' \
        "$tarball" "$image"
    quietly "$STATE/log/base-push.log" docker -H "unix://$DOCKER_SOCKET" push "$image"
    quietly "$STATE/log/base-push.log" docker -H "unix://$DOCKER_SOCKET" rmi "$image"
}

make_base_tarballs() {
    local folder=$1 work
    say "building the base images (takes a few minutes, once)"
    [[ -n $(missing_packages gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ]] &&
        apt_install gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    # Left over from a run that was interrupted.
    rm -rf "$DATA"/base.??????
    work=$(mktemp -d "$DATA/base.XXXXXX")
    rm -rf "$CACHE/base"
    mkdir -p "$folder"

    fetch_python_source "$work"
    unpack_debian "$work"
    fetch_pip "$work"

    make_official_amd64 "$work"
    make_official_arm64 "$work"
    make_debian_layout "$work/full-amd64"

    pack "$work/amd64" "$folder/amd64.tar.gz" &
    local first=$!
    pack "$work/arm64" "$folder/arm64.tar.gz"
    pack "$work/full-amd64" "$folder/debian.tar.gz"
    wait "$first"
    rm -rf "$work"
    touch "$folder/done"
}

# Downloads the upstream source, as Debian distributes it, and the headers. apt verifies both.
fetch_python_source() {
    local work=$1
    mkdir -p "$work/source/lists/partial"
    printf "%s [signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR bookworm main\n" deb deb-src \
        >"$work/source/list"
    local apt=(apt-get -o "Dir::Etc::sourcelist=$work/source/list"
        -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/source/lists"
        -o 'APT::Architectures=amd64,arm64' -o APT::Sandbox::User=root)
    quietly "$STATE/log/base-source.log" "${apt[@]}" update
    (
        cd "$work/source" # apt downloads to the working folder
        quietly "$STATE/log/base-source.log" "${apt[@]}" source --download-only python3.11
        quietly "$STATE/log/base-source.log" "${apt[@]}" download \
            libpython3.11-dev:amd64 libpython3.11-dev:arm64
        tar -xzf python3.11_*.orig.tar.gz --strip-components=1 --wildcards '*/Lib/*'
    )
}

unpack_debian() {
    local work=$1
    mkdir -p "$work/debs-amd64" "$work/debs-arm64"
    # For arm64, only download and unpack: the second stage would take minutes under emulation.
    bootstrap "$work" arm64 "$work/arm64" "$SLIM_PACKAGES,$PYTHON_PACKAGES" --foreign &
    local foreign=$!
    bootstrap "$work" amd64 "$work/full-amd64" "$SLIM_PACKAGES,$PYTHON_PACKAGES"
    bootstrap "$work" amd64 "$work/amd64" "$SLIM_PACKAGES"
    wait "$foreign"
}

bootstrap() {
    local work=$1 arch=$2 target=$3 packages=$4
    shift 4
    quietly "$STATE/log/base-$(basename "$target").log" debootstrap "$@" --variant=minbase \
        --arch="$arch" --keyring="$DEBIAN_KEYRING" --cache-dir="$work/debs-$arch" \
        --include="$packages" bookworm "$target" "$DEBIAN_MIRROR"
}

# Runs pip from its own wheel, so that this machine does not need pip.
fetch_pip() {
    local work=$1 wheel
    wheel=$(echo "$work"/source/Lib/ensurepip/_bundled/pip-*.whl)
    quietly "$STATE/log/base-pip.log" python3 "$wheel/pip" download --no-deps \
        --only-binary :all: --dest "$work/wheels" "${PIP_PACKAGES[@]}"
}

make_official_amd64() {
    local work=$1 root=$1/amd64
    add_python "$work" amd64 x86_64-linux-gnu gcc
    mkdir "$root/tmp/wheels"
    cp "$work"/wheels/*.whl "$root/tmp/wheels"
    chroot "$root" ldconfig
    # shellcheck disable=SC2016 # expanded by the inner shell
    quietly "$STATE/log/base-pip.log" chroot "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin \
        sh -c 'cd /tmp/wheels && python3 "$(echo pip-*.whl)/pip" install --no-index --no-compile \
            --no-cache-dir --root-user-action=ignore *.whl'
    rm -r "$root/tmp/wheels"
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
        # Only the packages that the amd64 image has, and therefore not Python's.
        [[ -e $work/amd64/var/lib/dpkg/info/$(dpkg-deb -f "$deb" Package).list ||
            -e $work/amd64/var/lib/dpkg/info/$(dpkg-deb -f "$deb" Package):amd64.list ]] || continue
        unpack_deb "$deb" "$root"
        register_deb "$deb" "$root"
    done
    copy_configured "$work/amd64" "$root"
    add_python "$work" arm64 aarch64-linux-gnu aarch64-linux-gnu-gcc
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

# add_python WORK ARCH TRIPLET COMPILER: installs Python in /usr/local.
add_python() {
    local work=$1 arch=$2 triplet=$3 compiler=$4
    local root=$work/$arch/usr/local package debian name
    debian=$work/python-$arch
    mkdir "$debian"
    for package in python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11; do
        unpack_deb "$(echo "$work/debs-$arch/${package}"_*.deb)" "$debian"
    done
    unpack_deb "$(echo "$work"/source/libpython3.11-dev_*_"$arch.deb")" "$debian"

    # Upstream's standard library first: it has the modules that Debian moves to other packages.
    cp -a "$work/source/Lib" "$root/lib/python3.11"
    cp -a "$debian/usr/lib/python3.11/." "$root/lib/python3.11/"
    # Debian's site.py and sysconfig.py add dist-packages and a second prefix. Use upstream's.
    for name in site.py sysconfig.py; do
        cp -a "$work/source/Lib/$name" "$root/lib/python3.11/$name"
    done
    # Debian's marker against installing with pip, and its link to settings in /etc.
    rm -f "$root"/lib/python3.11/{EXTERNALLY-MANAGED,sitecustomize.py}
    rm -f "$root"/lib/python3.11/site-packages/*
    # Replace the prefix that Debian's build recorded.
    sed -i -E "s#^( '(prefix|exec_prefix|BINDIR|BINLIBDEST|DESTDIRS|DESTLIB|DESTSHARED|INCLUDEDIR|INCLUDEPY|LIBDEST|LIBDIR|LIBPL|MACHDESTLIB|SCRIPTDIR)': ')/usr#\1/usr/local#" \
        "$root"/lib/python3.11/_sysconfigdata__*.py

    cp -a "$debian/usr/lib/$triplet"/libpython3.11.so.1* "$root/lib/"
    ln -s libpython3.11.so.1.0 "$root/lib/libpython3.11.so"
    mv "$debian/usr/include/python3.11" "$root/include/"
    cp -a "$debian/usr/include/$triplet/python3.11/pyconfig.h" "$root/include/python3.11/"
    # shellcheck disable=SC2016 # expanded by the dynamic linker
    "$compiler" -O2 -s -o "$root/bin/python3.11" "$LIB/python-main.c" \
        -I"$root/include/python3.11" -L"$root/lib" -lpython3.11 \
        -Wl,--unresolved-symbols=ignore-in-shared-libs -Wl,-rpath,'$ORIGIN/../lib'
    ln -s python3.11 "$root/bin/python3"
    ln -s python3 "$root/bin/python"

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
