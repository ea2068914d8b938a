#!/bin/sh
# Remove messages from nginx's cache on this machine: purge.sh DIGEST...
# The file of an entry is named by the MD5 of its key, $uri, in folders as `levels` says.
set -eu
cache=${CACHE:-/var/lib/nginx/messages}  # as proxy_cache_path in nginx.conf
for digest; do
    for address in "/messages/$digest" "/messages/$digest.txt"; do
        entry=$(printf %s "$address" | md5sum | sed -E 's|^(.{28})(..)(..) .*|\3/\2/\1\2\3|')
        rm -f "$cache/$entry"
    done
done
${RELOAD:-nginx -s reload}  # since open_file_cache keeps a file that was removed open
