#!/usr/bin/env bash
# Makes tls.crt and tls.key, a self-signed certificate for trying TLS out; browsers warn of it. It may not
# sign others: clients that are told to trust it would else refuse it as a server's.
# Keeps what is there.
#
#   scripts/self-signed.sh FOLDER [HOST...]     (localhost and 127.0.0.1 always)
set -euo pipefail

folder=${1:?usage: scripts/self-signed.sh FOLDER [HOST...]}
shift
names=DNS:localhost,IP:127.0.0.1
for host in "$@"; do names+=,DNS:$host; done

if [[ -s $folder/tls.crt && -s $folder/tls.key ]]; then
    echo "$folder/tls.crt is there already"
    exit
fi
mkdir -p "$folder"
umask 077
# Without openssl's own configuration, whose extensions would come in addition. The organisation keeps it apart
# from whatever else of the name of a host a system trusts.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -config <(printf '[req]\ndistinguished_name=dn\n[dn]\n') \
    -subj "/O=Rookery, self-signed/CN=${1:-localhost}" \
    -addext "subjectAltName=$names" -addext basicConstraints=critical,CA:FALSE \
    -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>"$folder/openssl.log" ||
    { cat "$folder/openssl.log" >&2; exit 1; }
rm "$folder/openssl.log"
chmod 644 "$folder/tls.crt"
echo "made $folder/tls.crt for $names, valid for 30 days"
