#!/usr/bin/env bash
# What the GPU machine lacks, which has no network, into .training-in/: texts, text tokenizer, flite, Python packages.
# Run in the repository's root, on a Debian with the package lists up to date and this project's environment on PATH.
set -euo pipefail
apt-get install -y -q fortunes wordnet-base wamerican-small flite
rm -rf .training-in && mkdir -p .training-in/partial
python -m training --stage texts --out .training-in
(cd .training-in && apt-get -o APT::Sandbox::User=root download flite libflite1 libasound2)
rmdir .training-in/partial
python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d .training-in av emoji msgspec num2words
du -sh .training-in
