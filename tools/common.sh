# Shared by the scripts of tools/ and .ci/run: where things are, how MPI is allowed to run, how the project is built.
# Sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034  # read by the scripts that source this file
release=$root/build/release

# OpenMPI refuses root and more ranks than cores unless told otherwise.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

# Clones in other folders share what ccache keeps.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1

# Prints the comment block under the shebang as help.
show_help() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# build PRESET [TARGET...]: configures and builds; ninja and ccache leave out what is up to date.
build() {
  local preset=$1
  shift
  cd "$root" || return 1
  cmake --preset "$preset" -Wno-dev >"$root/build/$preset.configure.log" 2>&1 ||
    { cat "$root/build/$preset.configure.log"; return 1; }
  cmake --build --preset "$preset" ${1:+--target "$@"}
}

# run_tests PRESET [CTEST ARGUMENT...]: one more at a time than there are cores, since many tests wait for a process they
# started.
run_tests() {
  local preset=$1
  shift
  cd "$root" || return 1
  ctest --preset "$preset" --parallel $(($(nproc) + 1)) --no-tests=error "$@"
}
