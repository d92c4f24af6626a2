#!/usr/bin/env bash
# Execute the notebooks themselves on a machine with a GPU.
#   notebooks/gpu.sh execute OUT   00 and 01 on the shipped checkpoints, device="cuda"
#   notebooks/gpu.sh train OUT     00 with retrain=True, one arm per GPU where there are two, then adopt OUT/model
# OUT receives the executed copies and what they write.  Environment:
#   CORPUS       a packed corpus (make corpus), where the installed packages are not the pinned ones; default: auto
#   WHEELS       a folder of wheels to install first, where papermill is missing
#   EXTRA        more papermill arguments, e.g. EXTRA="-p steps 40"
#   MOE_COMMIT   the commit, where git is absent
set -euo pipefail
mode=${1:?usage: gpu.sh execute|train OUT}
mkdir -p "${2:?usage: gpu.sh execute|train OUT}"
out=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
corpus=${CORPUS:-auto}
[ "$corpus" = auto ] || corpus=$(realpath "$corpus")
if [ -n "${WHEELS:-}" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$out/.site" "$WHEELS"/*.whl
  export PYTHONPATH="$out/.site:${PYTHONPATH:-}"
fi
export PYTHONPATH="$root:${PYTHONPATH:-}"

run() { # CHAPTER FOLDER ARGUMENTS...: the executed copy and the chapter's folder appear in FOLDER
  mkdir -p "$2"
  (cd "$2" && python3 -m papermill "$root/notebooks/$1.ipynb" "$1.ipynb" -k python3 --no-progress-bar \
    -p device cuda -p corpus_source "$corpus" "${@:3}" ${EXTRA:-})
}

if [ "$mode" = execute ]; then
  run 00_base_model "$out"
  run 01_profile "$out"
elif [ "$(python3 -c 'import torch; print(torch.cuda.device_count())')" -ge 2 ]; then
  CUDA_VISIBLE_DEVICES=0 run 00_base_model "$out/0" -p retrain True -y '{arms: [without]}' & first=$!
  CUDA_VISIBLE_DEVICES=1 run 00_base_model "$out/1" -p retrain True -y '{arms: [with]}'
  wait "$first"
  mkdir -p "$out/model" && cp -r "$out"/[01]/00_base_model/model/. "$out/model"
else
  run 00_base_model "$out" -p retrain True
  mkdir -p "$out/model" && cp -r "$out/00_base_model/model/." "$out/model"
fi
