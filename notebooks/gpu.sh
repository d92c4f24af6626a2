#!/usr/bin/env bash
# Execute the notebooks themselves on a machine with a GPU.
#   notebooks/gpu.sh execute OUT   the published run: every chapter with params/paper.yml; then `python -m lib publish`
#   notebooks/gpu.sh finetune OUT  the runs of 03, WORKERS processes on each visible GPU, for at most time_budget_s; what is
#                                  finished comes back as OUT/runs.tar, with which (RUNS) the same command goes on, and
#                                  `execute` reads them
#   notebooks/gpu.sh train OUT     00 with retrain=True, one arm per GPU where there are two, then adopt OUT/model
# OUT receives the executed copies and what they write.  Environment:
#   CORPUS       a packed corpus (make corpus), where the installed packages are not the pinned ones; default: auto
#   WHEELS       a folder of wheels to install first, where papermill is missing
#   EXTRA        more parameters, e.g. EXTRA='{"steps": 40}'
#   CHAPTERS     which to execute; default: all
#   RUNS         runs.tar of an earlier `finetune`
#   WORKERS      processes per GPU of `finetune`; default: 4, as one alone cannot fill a GPU with so small a model
#   MOE_COMMIT   the commit, where git is absent
set -euo pipefail
mode=${1:?usage: gpu.sh execute|finetune|train OUT}
mkdir -p "${2:?usage: gpu.sh execute|finetune|train OUT}"
out=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -n "${WHEELS:-}" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$out/.site" "$WHEELS"/*.whl
  export PYTHONPATH="$out/.site:${PYTHONPATH:-}"
fi
export PYTHONPATH="$root:${PYTHONPATH:-}"

run() { # CHAPTER FOLDER PARAMETERS(JSON): the executed copy and the chapter's folder appear in FOLDER
  mkdir -p "$2"
  corpus=auto
  if [ -n "${CORPUS:-}" ]; then corpus=corpus.xz && ln -sf "$(realpath "$CORPUS")" "$2/$corpus"; fi
  given=$(python3 - "$1" "$3" "${EXTRA:-{\}}" "$corpus" <<'END'
import json, sys
from lib.paper import workflow
chapter, own, extra, corpus = sys.argv[1:]
print(workflow.settings(chapter, workflow.load("paper") | {"corpus_source": corpus} | json.loads(own) | json.loads(extra)))
END
  )
  (cd "$2" && PAPER_RUN_NAME=paper PAPER_PARAMETERS_FILE=paper.yml \
    python3 -m lib.paper.workflow "$root/notebooks/$1.ipynb" "$1.ipynb" "$given")
  rm -f "$2/corpus.xz"
}

if [ -n "${RUNS:-}" ]; then mkdir -p "$out/03_finetune" && tar -C "$out/03_finetune" -xf "$RUNS"; fi

if [ "$mode" = finetune ]; then
  given=$(python3 - "${EXTRA:-{\}}" "${CORPUS:+$(realpath "${CORPUS:-.}")}" <<'END'
import json, sys
from lib.paper import workflow
own = workflow.defaults("03_finetune")
asked = workflow.load("paper") | ({"corpus_source": sys.argv[2], "allow_partial": True} if sys.argv[2] else {}) | json.loads(sys.argv[1])
print(json.dumps(own | json.loads(workflow.settings("03_finetune", asked))))
END
  )
  gpus=$(python3 -c 'import torch; print(max(1, torch.cuda.device_count()))')
  each=${WORKERS:-4}
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  for ((i = 0; i < gpus * each; i++)); do
    CUDA_VISIBLE_DEVICES=$((i % gpus)) python3 -m lib.balance.finetune "$out/03_finetune" "$given" "$i" "$((gpus * each))" \
      2> >(tr '\r' '\n' | grep -v '^$' | tail -n 3 >&2) & workers[i]=$!
  done
  status=0
  for worker in "${workers[@]}"; do wait "$worker" || status=1; done
  tar -C "$out/03_finetune" --exclude '.*' -cf "$out/runs.tar" runs && rm -r "$out/03_finetune"
  exit "$status"
elif [ "$mode" = execute ]; then
  for notebook in "$root"/notebooks/[0-9][0-9]_*.ipynb; do
    chapter=$(basename "$notebook" .ipynb)
    case " ${CHAPTERS:-$chapter} " in *" $chapter "*) run "$chapter" "$out" '{}' ;; esac
  done
elif [ "$(python3 -c 'import torch; print(torch.cuda.device_count())')" -ge 2 ]; then
  CUDA_VISIBLE_DEVICES=0 run 00_base_model "$out/0" '{"retrain": true, "arms": ["without"]}' & first=$!
  CUDA_VISIBLE_DEVICES=1 run 00_base_model "$out/1" '{"retrain": true, "arms": ["with"]}'
  wait "$first"
  mkdir -p "$out/model" && cp -r "$out"/[01]/00_base_model/model/. "$out/model"
else
  run 00_base_model "$out" '{"retrain": true}'
  mkdir -p "$out/model" && cp -r "$out/00_base_model/model/." "$out/model"
fi
