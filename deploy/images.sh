#!/usr/bin/env bash
# TaskFlow's images, one a role, under the names that the chart defaults to.
#
#   deploy/images.sh build [ROLE...]   build them; says how large each is and how long it took
#   deploy/images.sh load              make them, and the stores' images, known to the node of ../shared/cluster
#   deploy/images.sh names             print their names, one a line
#   deploy/images.sh builder           print what builds here
#
# BUILDER is docker, podman, cluster (../shared/cluster/cluster, with buildah behind it) or buildah; without it the
# first of them that works. BASE is another base image, REGISTRY another prefix of the names, TAG another tag.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROLES=(api scheduler worker operator)
STORES=(docker.io/library/postgres:15-bookworm docker.io/library/redis:7.0-bookworm)
CLUSTER=../shared/cluster/cluster
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1)
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
# As the cluster's own script has it: where buildah keeps images, and how it runs steps without a container runtime.
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}

name() { printf '%s/taskflow-%s:%s\n' "${REGISTRY:-ghcr.io/taskflow-dev}" "$1" "${TAG:-$VERSION}"; }

builder() {
  if [[ -n ${BUILDER:-} ]]; then echo "$BUILDER"
  elif docker version >/dev/null 2>&1; then echo docker  # its client alone builds nothing
  elif command -v podman >/dev/null; then echo podman
  elif [[ -x $CLUSTER ]]; then echo cluster
  elif command -v buildah >/dev/null; then echo buildah
  else echo 'images: nothing here builds images: install docker, podman or buildah' >&2; return 1
  fi
}

build_one() { # BUILDER NAME DOCKERFILE CONTEXT [--build-arg ...]
  local with=$1 image=$2 file=$3 context=$4; shift 4
  case $with in
    docker | podman) "$with" build "$@" -t "$image" -f "$file" "$context" ;;
    buildah) buildah bud --layers "$@" -t "$image" -f "$file" "$context" ;;
    cluster) "$CLUSTER" build-image "$image" "$file" "$context" "$@" ;;
    *) echo "images: BUILDER is docker, podman, cluster or buildah, not $with"; return 1 ;;
  esac
}

size() { # BUILDER NAME
  case $1 in
    docker | podman) "$1" image inspect --format '{{.Size}}' "$2" | awk '{printf "%d MB", $1 / 1e6}' ;;
    *) buildah images --format '{{.Size}}' "$2" ;;
  esac
}

build() { # ROLE...
  local with role began
  with=$(builder)
  [[ $with != cluster ]] || "$CLUSTER" base-images >&2
  for role; do
    began=$SECONDS
    printf '%s with %s: ' "$(name "$role")" "$with"
    build_one "$with" "$(name "$role")" "services/$role/Dockerfile" . --build-arg "VERSION=$VERSION" \
      ${BASE:+--build-arg "BASE=$BASE"} >"$LOG" 2>&1 </dev/null || { echo failed; tail -60 "$LOG"; return 1; }
    printf '%s, %d s\n' "$(size "$with" "$(name "$role")")" "$((SECONDS - began))"
  done
}

load() { # what changed since it was loaded last, by a note on the node
  local node image id note
  eval "$("$CLUSTER" env)"
  node=$(kubectl get node -o name)
  for image in $(for role in "${ROLES[@]}"; do name "$role"; done) "${STORES[@]}"; do
    id=$(buildah images --quiet --no-trunc "$image")
    note=taskflow.dev/$(basename "${image//:/-}")
    [[ $(kubectl get "$node" -o "jsonpath={.metadata.annotations['${note//./\\.}']}") != "$id" ]] || continue
    echo "loading $image"
    "$CLUSTER" load "$image"
    kubectl annotate --overwrite "$node" "$note=$id" >/dev/null
  done
}

command=${1:-}; shift || true
case $command in
  build) (($#)) || set -- "${ROLES[@]}"; build "$@" ;;
  load) load ;;
  names) for role in "${ROLES[@]}"; do name "$role"; done ;;
  builder) builder ;;
  *) sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
