#!/usr/bin/env bash
# One of the calls on the GPU machine: `bash training/gpu_call.sh SECONDS`, again until it says that all stages are over.
# Every stage goes on from its file in .training/, also after a call that was cut short. A stage is given its minutes in
# all calls together. With several GPUs, vocoder, flow and language model have one each; otherwise they share them.
# With RESUME=MINUTES, at least 2, in every call, training goes on from the demo model, as if it had had so many. A flow
# whose encoder has other sizes than the demo model's then trains that for FLOW_ENCODER minutes first.
set -uo pipefail
export OMP_NUM_THREADS=1 # or the stages' threads take the cores from one another
began=$SECONDS until=$((SECONDS + ${1:-570} - 50)) # the rest is for the export
source training/unpack.sh
export PATH=$PATH:/usr/local/nvidia/bin
gpus=$(nvidia-smi -L | wc -l)
if ((gpus < 3)); then # the Multi-Process Service, if the machine has it, lets stages compute at once and not by turns
    export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mps
    mkdir -p /tmp/mps
    if nvidia-cuda-mps-control -d > /tmp/mps/start 2>&1; then
        trap 'echo quit | nvidia-cuda-mps-control' EXIT
    else
        echo "without MPS: $(cat /tmp/mps/start)"
    fi
fi
case $gpus in # the GPU of vocoder, of flow, and of the language model and what comes before it
    0 | 1) gpu=(0 0 0) ;;
    2) gpu=(0 1 1) ;;
    *) gpu=(0 1 2) ;;
esac
VOCODER=${VOCODER:-13.5} FLOW=${FLOW:-11} FLOW_ENCODER=${FLOW_ENCODER:-4} LANGUAGE_MODEL=${LANGUAGE_MODEL:-11}
SCALE=${SCALE:-1} ADVERSARIAL=${ADVERSARIAL:-1}
left() { timeout $((until > SECONDS ? until - SECONDS : 1)) "$@"; }
on() { CUDA_VISIBLE_DEVICES=${gpu[$1]} "${@:2}"; }
run() { python3 -m training --out .training --hours "${HOURS:-8}" --stage "$@"; }
stage() { left python3 -m training --out .training --scale "$SCALE" --stage "$1" --minutes "${@:2}"; }
passed() { echo "--- $1 after $((SECONDS - began)) s"; }
flow() {
    [ -z "${RESUME:-}" ] || [ -f .training/flow.pt ] || on 1 stage flow_encoder "$FLOW_ENCODER" || return
    on 1 stage flow "$FLOW"
}

[ -z "${RESUME:-}" ] || [ -f .training/speech_tokenizer.pt ] || run resume --minutes "$RESUME" || exit 1
run corpus || exit 1
passed corpus
on 0 stage vocoder "$VOCODER" --adversarial "$ADVERSARIAL" & vocoder=$!
if [ ! -f .training/contents.pt ]; then
    run reading & reading=$!
    on 1 stage speaker_encoder 1 & speaker=$!
    on 2 stage speech_tokenizer 2 || exit 1
    wait $speaker || exit 1
    on 2 run contents || exit 1
    passed "the corpus' contents"
fi
flow & flow=$!
if [ ! -f .training/reading_contents.pt ]; then
    wait "${reading:-}" || run reading || exit 1
    on 2 run contents || exit 1
    passed "the reading's contents"
fi
on 2 stage language_model "$LANGUAGE_MODEL" & language_model=$!
wait $flow; flow=$?
wait $language_model; language_model=$?
on 2 left python3 -m training.phone_errors --out .training & errors=$!
wait $vocoder; vocoder=$?
wait $errors
passed "this call's training"
((flow + language_model + vocoder)) && echo "--- call again" || echo "--- all stages are over"

rm -rf .training/model
run export
du -sb .training/model
if [ -n "${OUT:-}" ]; then # at most 16 MiB a file may come back
    tar -C .training -c model | split -b 15m - "$OUT/model.tar."
    tar -C .training -czf "$OUT/curves.tar.gz" $(cd .training && ls ./*.jsonl)
fi
