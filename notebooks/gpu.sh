#!/usr/bin/env bash
# Execute the notebooks themselves on a machine with a GPU.
#   notebooks/gpu.sh execute OUT   the published run: every chapter with params/paper.yml; then `python -m lib publish`
#   notebooks/gpu.sh measure OUT   the hardware: all-to-all, expert compute and expert-parallel layers on all GPUs (about
#                                  7 minutes; one GPU: expert compute only); then move OUT/measured/* to data/measured.
#                                  What follows OUT changes the declared grid, for a test of what was fitted on it:
#                                    --experiments --sizes --skews --shapes --tokens --levels --rhos, each with its values
#   notebooks/gpu.sh finetune OUT  the runs of 03, WORKERS processes on each visible GPU, for at most time_budget_s; what is
#                                  finished comes back as OUT/runs.tar, with which (RUNS) the same command goes on, and
#                                  `execute` reads them
#   notebooks/gpu.sh ladder OUT    other checkpoints: QUEUE trained and evaluated, WORKERS processes on each visible GPU; nothing
#                                  is begun that would hardly end within BUDGET_S.  What is finished comes back as
#                                  OUT/QUEUE.packed, with which (RUNS) the same command goes on; then move it to
#                                  data/reference/ladder.  The eight pairs:
#                                    make corpus STRIDES=3      (where the GPU machine has other packages; it travels along)
#                                    CORPUS=_build/corpus.xz notebooks/gpu.sh ladder out
#                                    CORPUS=_build/corpus.xz RUNS=out/pairs.packed notebooks/gpu.sh ladder more
#   notebooks/gpu.sh bench OUT     the training loop against the Trainer (then move OUT/training to data/measured), and how many
#                                  small matrices the network engine bounds in a second
#   notebooks/gpu.sh bars OUT      what 01, 02 and 03 take of a GPU's memory on a model of 13 GB (random weights of a real shape,
#                                  for cost only), as a table (then move OUT/memory.csv to data/measured/bars)
#   notebooks/gpu.sh train OUT     00 with retrain=True, one arm per GPU where there are two, then adopt OUT/model
# OUT receives the executed copies and what they write.  Environment:
#   CORPUS       a packed corpus (make corpus), where the installed packages are not the pinned ones; default: auto
#   WHEELS       a folder of wheels to install first, where papermill is missing
#   EXTRA        more parameters, e.g. EXTRA='{"steps": 40}'
#   CHAPTERS     which to execute; default: all
#   RUNS         runs.tar of an earlier `finetune`, and the published runs (data/reference/03/runs.packed) where they count;
#                files that an earlier `ladder` left
#   QUEUE        of `ladder`: pairs (default), losses, repairs, cheap, shapes, sizes; several are worked on one after the other
#   ONLY         of `ladder`: names of single jobs, e.g. "none_1 switch_1"; default: all
#   WORKERS      processes per GPU of `finetune` and `ladder`; default: 4 and 3, as one alone cannot fill a GPU with so small
#                a model; of QUEUE=sizes each process takes up to 29 GiB, 48 while it captures a graph
#   MOE_COMMIT   the commit, where the tree was copied without its history
#   BUDGET_S     seconds for measure; default: 390; for ladder; default: 510
#   SEED         of measure; another one than 0 draws other routes, and names its folder so; default: 0
set -euo pipefail
mode=${1:?usage: gpu.sh execute|finetune|ladder|measure|bench|bars|train OUT}
mkdir -p "${2:?usage: gpu.sh execute|finetune|ladder|measure|bench|bars|train OUT}"
out=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -n "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH="$site:${PYTHONPATH:-}"
fi
export PYTHONPATH="$root:${PYTHONPATH:-}"
git -C "$root" diff --quiet HEAD 2>/dev/null || : "${MOE_COMMIT:?must name the commit, since git does not know this tree}"

run() { # CHAPTER FOLDER PARAMETERS(JSON): the executed copy and the chapter's folder appear in FOLDER
  mkdir -p "$2"
  corpus=auto
  if [ -n "${CORPUS:-}" ]; then corpus=corpus.xz && ln -sf "$(realpath "$CORPUS")" "$2/$corpus"; fi
  given=$(cd "$2" && python3 -m lib.paper.given "$1" --params "${PARAMS:-paper}" --json "{\"corpus_source\": \"$corpus\"}" --json "$3" --json "${EXTRA:-{\}}") || return 1
  given=${given//"$(realpath "$2")/"/} # what lies in its own folder is named so on its page
  (cd "$2" && PAPER_RUN_NAME=${PARAMS:-paper} PAPER_PARAMETERS_FILE=${PARAMS:-paper}.yml \
    python3 -m lib.paper.runner "$root/notebooks/$1.ipynb" "$1.ipynb" "$given")
  rm -f "$2/corpus.xz"
}

gpus() { python3 -c 'import torch; print(torch.cuda.device_count())'; }

if [ "$mode" = ladder ]; then
  # unfinished jobs stay in _build/ladder, for a next call on the same machine
  # shellcheck disable=SC2086
  python3 -m lib.commands.ladder "$root/_build/ladder" --queue ${QUEUE:-pairs} --corpus "${CORPUS:-auto}" --workers "${WORKERS:-3}" \
    --budget-s "${BUDGET_S:-510}" --pack "$out" --numbers "${EXTRA:-{\}}" ${RUNS:+--runs $RUNS} ${ONLY:+--only $ONLY} \
    2> >(stdbuf -oL tr '\r' '\n' | grep --line-buffered -oE 'ladder [0-9:]{8} .*|ladder: .*|Traceback.*|  File .*|[A-Za-z.]*Error.*' >&2)
  exit
fi

published=""
for file in ${RUNS:-}; do
  case "$file" in
    *.packed | *.xz) published=$(realpath "$file") ;;
    *) mkdir -p "$out/03_finetune" && tar -C "$out/03_finetune" -xf "$file" ;;
  esac
done

if [ "$mode" = measure ]; then
  [ "$(gpus)" -ge 1 ] || { echo "gpu.sh measure: 0 GPUs: must be at least 1" >&2; exit 1; }
  export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1 OMP_NUM_THREADS=1
  export MOE_COMMIT=${MOE_COMMIT:-$(git -C "$root" rev-parse HEAD)}
  python3 -m torch.distributed.run --standalone --nproc-per-node "$(gpus)" -m lib.measure.collectives "$out/measured" \
    --budget-s "${BUDGET_S:-390}" --seed "${SEED:-0}" --trace "$root"/data/reference/01/trace_*.npz "${@:3}"
elif [ "$mode" = bench ]; then
  python3 "$root/tests/bench_training.py" "$out/training" 32 512 110
  python3 -m pytest -o addopts= -q -s "$root/tests/bench_network.py" -k many_small -p no:cacheprovider | tee "$out/matrices.txt"
elif [ "$mode" = finetune ]; then
  packed='{}'
  if [ -n "${CORPUS:-}" ]; then packed="{\"corpus_source\": \"$(realpath "$CORPUS")\", \"allow_partial\": true}"; fi
  given=$(python3 -m lib.paper.given 03_finetune --whole --params paper --json "$packed" --json "${EXTRA:-{\}}")
  count=$(gpus)
  ((count)) || count=1
  each=${WORKERS:-4}
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  for ((i = 0; i < count * each; i++)); do
    CUDA_VISIBLE_DEVICES=$((i % count)) python3 -m lib.balance.finetune "$out/03_finetune" "$given" "$i" "$((count * each))" "$published" \
      2> >(tr '\r' '\n' | grep -v '^$' | tail -n 3 >&2) & workers[i]=$!
  done
  status=0
  for worker in "${workers[@]}"; do wait "$worker" || status=1; done
  tar -C "$out/03_finetune" --exclude '.*' -cf "$out/runs.tar" runs && rm -r "$out/03_finetune"
  exit "$status"
elif [ "$mode" = bars ]; then
  giant=$(mktemp -d)
  python3 -m lib.commands.random_model "$giant"
  given="{\"model\": \"$giant\"}"
  for chapter in 01_profile 02_assignment 03_finetune; do
    case " ${CHAPTERS:-$chapter} " in *" $chapter "*) (PARAMS=bars run "$chapter" "$out/$chapter" "$given" || echo "$chapter failed" >&2) & ;; esac
  done
  wait
  for folder in "$out"/0*/; do mv "$folder" "$out/part" && cp -r "$out/part/." "$out" && rm -r "$out/part"; done
  rm -r "$giant"
  python3 -m lib.commands.bars "$out" "$out/memory.csv"
elif [ "$mode" = execute ]; then
  for notebook in "$root"/notebooks/[0-9][0-9]_*.ipynb; do
    chapter=$(basename "$notebook" .ipynb)
    case " ${CHAPTERS:-$chapter} " in *" $chapter "*) run "$chapter" "$out" '{}' ;; esac
  done
elif [ "$(gpus)" -ge 2 ]; then
  CUDA_VISIBLE_DEVICES=0 run 00_base_model "$out/0" '{"retrain": true, "arms": ["without"]}' & first=$!
  CUDA_VISIBLE_DEVICES=1 run 00_base_model "$out/1" '{"retrain": true, "arms": ["with"]}'
  wait "$first"
  mkdir -p "$out/model" && cp -r "$out"/[01]/00_base_model/model/. "$out/model"
else
  run 00_base_model "$out" '{"retrain": true}'
  mkdir -p "$out/model" && cp -r "$out/00_base_model/model/." "$out/model"
fi
