#!/usr/bin/env bash
# On the GPU machine, in the repository's root: `source training/unpack.sh`. Leaves alone what is there already.
if [ ! -d /tmp/training ]; then
    mkdir -p /tmp/training/site .training
    for package in .training-in/*.deb; do dpkg -x "$package" /tmp/training; done
    python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/training/site .training-in/*.whl
    cp -r .training-in/texts.json .training-in/CosyVoice-BlankEN .training/
fi
export PATH=/tmp/training/usr/bin:$PATH
export LD_LIBRARY_PATH=/tmp/training/usr/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}
export PYTHONPATH=.:/tmp/training/site PYTHONUNBUFFERED=1
