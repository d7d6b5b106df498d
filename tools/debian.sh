#!/bin/sh
# Installs those of the given Debian packages that are missing (as root).
set -eu
missing=
for p in "$@"; do
    dpkg-query -W -f='${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "setup: not root; these Debian packages are missing, install them first:$missing" >&2
    exit 1
fi
echo "setup: installing$missing"
apt-get update -qq
# A package must not start its own service on this machine: the tests start what they need, in namespaces.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f '$policy EXIT
fi
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
