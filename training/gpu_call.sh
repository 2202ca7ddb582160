#!/usr/bin/env bash
# One call on the GPU machine: `bash training/gpu_call.sh SECONDS`, again until it says that all stages are over.
# Every stage goes on from its file in .training/, and so does a call that was cut short. What a stage is given is its
# minutes in all calls together. The networks are small, so several train on the one GPU at a time.
set -uo pipefail
until=$((SECONDS + ${1:-570} - 75)) # the rest is for the export
source training/unpack.sh
VOCODER=${VOCODER:-15} FLOW=${FLOW:-14} LANGUAGE_MODEL=${LANGUAGE_MODEL:-11}
stage() { timeout $((until > SECONDS ? until - SECONDS : 1)) python3 -m training --out .training --stage "$1" --minutes "$2"; }

python3 -m training --out .training --stage corpus --hours "${HOURS:-12}" || exit 1
stage vocoder "$VOCODER" & vocoder=$!
if [ ! -f .training/embeddings.pt ] || [ ! -f .training/contents.pt ]; then
    stage speaker_encoder 1 & speaker=$!
    stage speech_tokenizer 1.5 || exit 1
    wait $speaker || exit 1
fi
stage language_model "$LANGUAGE_MODEL" & language_model=$!
stage flow "$FLOW"; flow=$?
wait $language_model; language_model=$?
wait $vocoder; vocoder=$?
((flow + language_model + vocoder)) && echo "--- call again" || echo "--- all stages are over"

rm -rf .training/model
python3 -m training --out .training --stage export
du -sh .training/model
if [ -n "${OUT:-}" ]; then # at most 16 MiB a file may come back
    tar -C .training -c model | split -b 15m - "$OUT/model.tar."
    tar -C .training -czf "$OUT/curves.tar.gz" $(cd .training && ls ./*.jsonl)
fi
