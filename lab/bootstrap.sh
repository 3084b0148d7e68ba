#!/bin/sh
# Install what the control machine needs: Debian packages for the lab, and a virtual environment
# with the locked Python tools. Safe to repeat; does nothing when all is there.
set -eu
cd "$(dirname "$0")/.."

packages="podman crun runc mmdebstrap openssh-client python3-venv zstd git curl"
packages="$packages netavark aardvark-dns nftables iptables debian-archive-keyring"
[ "${1:-}" != test ] || packages="$packages postgresql redis-server chromium chromium-driver"
# Clients in JavaScript are among the tests; any Node.js does.
[ "${1:-}" != test ] || command -v npm >/dev/null || packages="$packages nodejs npm"

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "make: run as root, or first: sudo apt-get install$missing" >&2
        exit 1
    fi
    echo "==> Install Debian packages:$missing (1 to 2 minutes)"
    export DEBIAN_FRONTEND=noninteractive
    # The databases' packages are for tests, which start their own: no service of this machine.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    apt-get -qq update
    # shellcheck disable=SC2086 # a list of words
    apt-get -qq install --no-install-recommends $missing >/dev/null
fi

wanted=$(cat requirements.txt lab/bootstrap.sh | sha256sum | cut -c1-16)
if [ "$(cat .venv/made-from 2>/dev/null)" != "$wanted" ]; then
    echo "==> Install the Python tools (1 minute)"
    python=python3
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "make: Python 3.11 or newer is needed; this is $("$python" --version)" >&2
        exit 1
    }
    rm -rf .venv
    "$python" -m venv .venv || { python=/usr/bin/python3; "$python" -m venv --clear .venv; }
    grep -A 60 '^uv==' requirements.txt | awk 'NR > 1 && /^[a-z]/ { exit } { print }' >.venv/uv.txt
    .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
    if ! .venv/bin/uv pip install -q --python .venv/bin/python --require-hashes -r requirements.txt
    then
        # pip knows settings of the machine (an index, a proxy's certificate) that uv does not.
        .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
    fi
    echo "$wanted" >.venv/made-from
fi
