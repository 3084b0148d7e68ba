#!/bin/sh
# Print who connects, before any sudo, as user=NAME, and key=yes if sshd would let them in by a key.
set -eu

user=${SUDO_USER:-$(id -un)}
home=$(getent passwd "$user" | cut -d: -f6)
echo "user=$user"

/usr/sbin/sshd -T -C "user=$user,host=localhost,addr=127.0.0.1" | while read -r option value; do
    case $option in
    authorizedkeysfile)
        for file in $value; do
            file=$(echo "$file" | sed "s|%u|$user|g; s|%h|$home|g; s|^[^/]|$home/&|")
            if [ -s "$file" ]; then echo key=yes; fi
        done
        ;;
    trustedusercakeys | authorizedkeyscommand)
        if [ "$value" != none ]; then echo key=yes; fi
        ;;
    esac
done
