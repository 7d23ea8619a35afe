"""The verb `cascade` of the command line."""

from dataclasses import asdict

from whet.cli.console import print_json, show, tell
from whet.cli.options import MAX_LENGTH, InputLength, OutputOptions, TaskOptions, ThreadOptions, in_words
from whet.utils.ranges import MaxDisagreement


def cascade(
    fastest: str,
    /,
    *models: str,
    output: OutputOptions,
    data: TaskOptions = TaskOptions(),
    max_disagreement: MaxDisagreement = 0.5,
    score: str = "probability",
    max_length: InputLength = MAX_LENGTH,
    machine: ThreadOptions = ThreadOptions(),
) -> None:
    """Save a fast model and the original as one: the fast one answers where it is sure, the original the rest.

    Held-out training data decide how sure it must be.

    Args:
        fastest: Folder or hub name of the fastest model.
        models: The others, each slower than the one before; the original last.
        max_disagreement: Percent of the answers that may differ from the original's, with 95 % confidence.
        score: What says how sure a model is of its answer: its probability, the margin to the next one, or the entropy
            of all.
    """
    from whet.models.model_files import ModelFiles

    sources = (fastest, *models)
    for source in sources:
        ModelFiles.of(source)  # before slow imports
    output.keep()
    task = data.load()
    machine.use_cpu()
    from whet import api

    found = api.cascade(
        sources,
        task,
        output.out,
        max_disagreement=max_disagreement,
        score=score,  # type: ignore[arg-type]  # checked there
        max_length=max_length,
        kind=data.kind,
        overwrite=output.overwrite,
    )
    if output.as_json:
        print_json({**asdict(found), "expected_speedup": found.expected_speedup})
        return
    shares = ", ".join(f"{source} {share:.1%}" for source, share in zip(sources, found.answered, strict=True))
    show(f"saved to {output.out}; of {found.examples} held-out texts, each model answers: {shares}")
    show(
        f"{found.disagreement:.2g} % of these answers differ from those of {sources[-1]}; with 95 % confidence at most "
        f"{max_disagreement:g} % of all do"
    )
    show(f"expected in PyTorch: {found.expected_speedup:.2g} times the speed of {sources[-1]}")
    tell(f"measure it: {in_words('whet', 'measure', sources[-1], output.out, *data.words(max_length=max_length))}")
