#!/usr/bin/env bash
# One of the calls on the GPU machine: `bash training/gpu_call.sh SECONDS`, again until it says that all stages are over.
# Every stage goes on from its file in .training/, and so does a call that was cut short. What a stage is given is its
# minutes in all calls together. The networks are small, so several train on the one GPU at a time.
# With RESUME=MINUTES, at least 2, in every call, training goes on from the demo model, as if it had had so many.
set -uo pipefail
export OMP_NUM_THREADS=1 # or the stages' threads take the cores from one another
began=$SECONDS until=$((SECONDS + ${1:-570} - 50)) # the rest is for the export
source training/unpack.sh
# The Multi-Process Service, if the machine has it, lets the stages compute at once and not by turns.
export PATH=$PATH:/usr/local/nvidia/bin CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mps
mkdir -p /tmp/mps
if nvidia-cuda-mps-control -d > /tmp/mps/start 2>&1; then
    trap 'echo quit | nvidia-cuda-mps-control' EXIT
else
    echo "without MPS: $(cat /tmp/mps/start)"
fi
VOCODER=${VOCODER:-13.5} FLOW=${FLOW:-11} LANGUAGE_MODEL=${LANGUAGE_MODEL:-11}
left() { timeout $((until > SECONDS ? until - SECONDS : 1)) "$@"; }
run() { python3 -m training --out .training --hours "${HOURS:-8}" --stage "$@"; }
stage() { left python3 -m training --out .training --stage "$1" --minutes "$2"; }
passed() { echo "--- $1 after $((SECONDS - began)) s"; }

[ -z "${RESUME:-}" ] || [ -f .training/speech_tokenizer.pt ] || run resume --minutes "$RESUME" || exit 1
run corpus || exit 1
passed corpus
stage vocoder "$VOCODER" & vocoder=$!
if [ ! -f .training/contents.pt ]; then
    run reading & reading=$!
    stage speaker_encoder 1 & speaker=$!
    stage speech_tokenizer 2 || exit 1
    wait $speaker || exit 1
    run contents || exit 1
    passed "the corpus' contents"
fi
stage flow "$FLOW" & flow=$!
if [ ! -f .training/reading_contents.pt ]; then
    wait "${reading:-}" || run reading || exit 1
    run contents || exit 1
    passed "the reading's contents"
fi
stage language_model "$LANGUAGE_MODEL" & language_model=$!
wait $flow; flow=$?
wait $language_model; language_model=$?
left python3 -m training.phone_errors --out .training & errors=$!
wait $vocoder; vocoder=$?
wait $errors
passed "this call's training"
((flow + language_model + vocoder)) && echo "--- call again" || echo "--- all stages are over"

rm -rf .training/model
run export
du -sh .training/model
if [ -n "${OUT:-}" ]; then # at most 16 MiB a file may come back
    tar -C .training -c model | split -b 15m - "$OUT/model.tar."
    tar -C .training -czf "$OUT/curves.tar.gz" $(cd .training && ls ./*.jsonl)
fi
