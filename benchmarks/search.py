r"""How much of the speed that an exhaustive search finds one of fifteen minutes has found already.

    python benchmarks/search.py --model runs/glue/glue_sst2/dense --task glue/sst2 \
        --data-dir ../shared/data --max-drop 2

searches for some minutes, keeps what that found, and goes on with the same search until every structure of its space
was tried. Then both winners and the original are measured side by side on the dev split. Adds what it finds to
search.json beside this file.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

import whet
from whet import Benchmark, SearchResult
from whet.evaluation import BenchmarkRow
from whet.searching import BEST, Target
from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
HOUR = 3600
SIDE_BY_SIDE = Benchmark(rounds=20, singles=10, timed=128, metrics=("fidelity", "latency", "size"))


def main() -> None:
    """Search twice, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a fine-tuned model")
    parser.add_argument("--task", default="glue/sst2")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = whet.load_task(options.task, data_dir=options.data_dir)
    folder, kept = options.out / "search", options.out / "found soon"
    soon = searched(options, task, folder, seconds=60 * options.minutes)
    shutil.copytree(folder / BEST, kept, dirs_exist_ok=True)
    late = searched(options, task, folder, seconds=100 * HOUR)
    rows = [
        BenchmarkRow(options.model),
        BenchmarkRow(kept, *Target.of(soon.best)),
        BenchmarkRow(folder / BEST, *Target.of(late.best)),
    ]
    trials = SIDE_BY_SIDE.compare(rows, task)
    speeds = [times_as_fast(trial) for trial in trials[1:]]
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[options.task] = {
        "max drop": options.max_drop,
        "minutes": options.minutes,
        "soon": told(soon),
        "exhaustive": told(late),
        "share of the exhaustive one's speed": speeds[0] / speeds[1],
        "on dev": [trial.to_dict() for trial in trials],
        "conditions": current_machine("cpu").to_dict(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: results[options.task][key] for key in ("soon", "exhaustive")}, indent=1))


def searched(options: argparse.Namespace, task: whet.Task, folder: Path, *, seconds: float) -> SearchResult:
    """Return what a search found by then; it goes on where the one before it ended."""
    return whet.search(
        options.model,
        task,
        folder,
        goal=whet.Goal(max_drop=options.max_drop),
        seconds=seconds,
        report=lambda trial: print(trial.structure, trial.state, trial.value, flush=True),
        warn=print,
    )


def told(result: SearchResult) -> dict[str, Any]:
    """Return what a search tried, and what was best on its selection slice."""
    return {
        "best": result.best.name,
        "accepted": result.accepted,
        "times as fast": times_as_fast(result.best),
        "structures": len(result.search_trials),
        "seconds": sum(trial.seconds for trial in result.search_trials),
        "notes": result.notes,
    }


def times_as_fast(trial: whet.Trial) -> float:
    """Return how many times as many sentences a second it takes as the original does."""
    versus = trial.get("throughput").versus
    return 1.0 if versus is None else versus.value


if __name__ == "__main__":
    main()
