#!/bin/sh
# Make the lake's bucket and the one key that may use it. Rerunning changes nothing.
set -eu
mc alias set lake http://minio:9000 "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" >/dev/null
mc mb --ignore-existing lake/emporium
if ! mc admin user info lake "$LAKE_KEY_ID" >/dev/null 2>&1; then
  mc admin policy create lake emporium-lake /containers/lake-policy.json
  mc admin user add lake "$LAKE_KEY_ID" "$LAKE_KEY_SECRET"
  mc admin policy attach lake emporium-lake --user "$LAKE_KEY_ID"
fi
