# shellcheck shell=bash
# Shared by the scripts in tools/: where the source is, messages, package installation.
#
# A mirror that answers badly is normal and no reason to stop: updates are retried, a mirror that is
# out of step is a warning, and only a package that cannot be installed in the end is an error.

RD_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RD_NAME=$(basename "$0")

rd_say() { echo "$RD_NAME: $*"; }
rd_warn() { echo "$RD_NAME: warning: $*" >&2; }
rd_die() { echo "$RD_NAME: error: $*" >&2; exit 1; }

# rd_packages GROUP...: the names listed in tools/packages under these groups.
rd_packages() {
    local groups=" $* " group name
    while read -r group name _; do
        case $group in '' | '#'*) continue ;; esac
        case $groups in *" $group "*) echo "$name" ;; esac
    done < "$RD_ROOT/tools/packages"
}

# rd_absent NAME...: those of the packages that are not installed.
rd_absent() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

rd_as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        rd_die "installing packages needs root: no sudo here. As root, run: apt-get install $(rd_absent "${RD_WANTED[@]}" | tr '\n' ' ')"
    fi
}

RD_APT=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)

rd_apt_update() {
    local try
    for try in 1 2 3; do
        # Error-Mode=any: a list that could not be fetched is a failure too, not only a remark.
        rd_as_root "${RD_APT[@]}" -qq -o APT::Update::Error-Mode=any update && return 0
        rd_warn "apt-get update failed (attempt $try of 3)"
        sleep $((try * 3))
    done
    rd_warn "a mirror seems out of step; going on with the package lists there are"
}

# rd_install GROUP...: make sure that the packages of these groups are installed.
rd_install() {
    command -v apt-get >/dev/null || rd_die "no apt-get here: this script is for Debian 12; see tools/packages for what is needed"
    mapfile -t RD_WANTED < <(rd_packages "$@")
    local absent=() try name
    mapfile -t absent < <(rd_absent "${RD_WANTED[@]}")
    if [ ${#absent[@]} = 0 ]; then
        rd_say "packages: all ${#RD_WANTED[@]} are installed"
        return 0
    fi
    rd_say "packages: installing ${absent[*]}"
    for try in 1 2 3; do
        rd_apt_update
        rd_as_root "${RD_APT[@]}" -qq -y --no-install-recommends install "${absent[@]}" >/dev/null && break
        rd_warn "apt-get install failed (attempt $try of 3)"
        sleep $((try * 5))
        mapfile -t absent < <(rd_absent "${RD_WANTED[@]}")
    done
    mapfile -t absent < <(rd_absent "${RD_WANTED[@]}")
    [ ${#absent[@]} = 0 ] && return 0
    # One bad package must not hide behind the others: name exactly those that will not go in.
    for name in "${absent[@]}"; do
        rd_as_root "${RD_APT[@]}" -qq -y --no-install-recommends install "$name" >/dev/null || true
    done
    mapfile -t absent < <(rd_absent "${RD_WANTED[@]}")
    [ ${#absent[@]} = 0 ] || rd_die "cannot install: ${absent[*]}"
}

# rd_build PRESET [TARGET...]: configure and build, quietly unless it fails.
rd_build() {
    local preset=$1 log
    shift
    log=$RD_ROOT/build/$preset.log
    mkdir -p "$RD_ROOT/build"
    local targets=()
    [ $# = 0 ] || targets=(--target "$@")
    if (cd "$RD_ROOT" && cmake --preset "$preset" && cmake --build --preset "$preset" "${targets[@]}") > "$log" 2>&1; then
        return 0
    fi
    tail -n 60 "$log" >&2
    rd_warn "building preset '$preset' failed; the whole log is $log"
    return 1
}
