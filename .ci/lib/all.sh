# shellcheck shell=bash
# Every script in .ci sources this file, after setting LIB to this folder.

# shellcheck source=common.sh
. "$LIB/common.sh"
# shellcheck source=packages.sh
. "$LIB/packages.sh"
# shellcheck source=podman.sh
. "$LIB/podman.sh"
# shellcheck source=stores.sh
. "$LIB/stores.sh"
# shellcheck source=daemons.sh
. "$LIB/daemons.sh"
# shellcheck source=registries.sh
. "$LIB/registries.sh"
# shellcheck source=base-image.sh
. "$LIB/base-image.sh"
# shellcheck source=temporal.sh
. "$LIB/temporal.sh"
# shellcheck source=tools.sh
. "$LIB/tools.sh"
# shellcheck source=buildkit.sh
. "$LIB/buildkit.sh"
# shellcheck source=roots.sh
. "$LIB/roots.sh"
# shellcheck source=ages.sh
. "$LIB/ages.sh"
# shellcheck source=env.sh
. "$LIB/env.sh"
