#!/bin/sh
# In a container the access log belongs on its output. The official image runs this before nginx.
ln -sf /dev/stdout "${ROOKERY_RUN_DIR:?is not set}/access.log"
