#!/bin/sh
# Remove messages from nginx's cache on this machine, as nginx's user: purge.sh DIGEST...
# The file of an entry is named by the MD5 of its key, $uri, in folders as `levels` says.
set -eu
cd "${CACHE:-/var/lib/nginx/messages}"  # as proxy_cache_path in nginx.conf
for digest; do
    printf %s "$digest" | grep -qxE '[0-9a-f]{64}' || {
        echo "Not a digest, which has 64 of 0-9 and a-f: $digest. Nothing was removed." >&2
        exit 2
    }
done

# nginx takes a file of version 0 for that of another nginx, and asks an instance. It must be told so
# in the file: open_file_cache keeps a file that was removed open. An answer that is being sent goes
# on, since its body stays as it is. A file with a number behind its name is one that arrives now.
remove() {
    [ ! -f "$1" ] || printf '\0\0\0\0\0\0\0\0' 1<> "$1"
    rm -f "$1" "$1".*
}

remove_all() {
    for digest; do
        for address in "/messages/$digest" "/messages/$digest.txt"; do
            remove "$(printf %s "$address" | md5sum | sed -E 's|^(.{28})(..)(..) .*|\3/\2/\1\2\3|')"
        done
    done
}

remove_all "$@"
sleep 2  # nginx waits no longer for an answer that left an instance before the message was taken down
remove_all "$@"
