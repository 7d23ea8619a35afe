"""Every kind of model answers in every form as it does in PyTorch, and a server says the same in JSON."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

import whet
from folders import classifier, save
from helpers import VOCAB, _make_awkward, word_tokenizer
from run.test_predictor import BLOCKED
from sentences import sentence_folder
from whet.errors import InvalidData, InvalidModel, InvalidParameter
from whet.evaluation import records
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import predict
from whet.run import server
from whet.run.kinds.base import About, all_predictors, predictor_named
from whet.run.sessions import Session
from whet.run.text import Padding, Row
from whet.tasks import tags as tag_module
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import all_kinds
from whet.tasks.questions import Questions

WORDS = [f"w{5 + (7 * i) % 90}" for i in range(200)]
SENTENCES = [" ".join(WORDS[i : i + 1 + (5 * i) % 17]) for i in range(12)]
LONG = " ".join(WORDS)
QUESTIONS = [("w5 w9", LONG), ("w7", "w8 w9"), ("w6 w7 w8", " ".join(WORDS[:40]))]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def awkward(model: torch.nn.Module) -> torch.nn.Module:
    """With biases, and answers that depend on the tokens."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        _make_awkward(module, generator)
    return model.eval()


def of_one_score(settings: dict[str, Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        model = classifier(labels=("score",), blocks=1)
        model.config.update(settings)
        return save(model, word_tokenizer(), folder)

    return make


def of_labels(folder: Path) -> Path:
    model = classifier(labels=("joy", "anger", "fear"), blocks=1)
    model.config.problem_type = "multi_label_classification"
    return save(model, word_tokenizer(), folder)


def tagger(folder: Path) -> Path:
    names = dict(enumerate(TAGS))
    config = BertConfig(**SMALL, id2label=names, label2id={name: i for i, name in names.items()})
    return save(awkward(BertForTokenClassification(config)), word_tokenizer(), folder)


class Case(NamedTuple):
    """A kind, and what it is asked."""

    make: Callable[[Path], Path]
    inputs: list[Any]
    request: dict[str, Any]


CASES = {
    "classification": Case(
        lambda folder: save(classifier(blocks=1), word_tokenizer(), folder), SENTENCES, {"texts": SENTENCES}
    ),
    "regression": Case(of_one_score({"problem_type": "regression"}), SENTENCES, {"texts": SENTENCES}),
    "multi_label": Case(of_labels, SENTENCES, {"texts": SENTENCES}),
    "token_classification": Case(tagger, [*SENTENCES, WORDS[:5]], {"texts": [*SENTENCES, WORDS[:5]]}),
    "question_answering": Case(
        lambda folder: save(awkward(BertForQuestionAnswering(BertConfig(**SMALL))), word_tokenizer(), folder),
        QUESTIONS,
        {"texts": QUESTIONS},
    ),
    "reranking": Case(
        of_one_score({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}),
        QUESTIONS,
        {"query": "w5", "documents": ["w6", "w7 w8", "w9"]},
    ),
    "embedding": Case(lambda folder: sentence_folder(folder, word_tokenizer()), SENTENCES, {"texts": SENTENCES}),
}
ELSEWHERE = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """Return the folder of a kind, and of its copy with exports, each made once."""
    known: dict[str, tuple[Path, Path]] = {}

    def of(kind: str) -> tuple[Path, Path]:
        if kind not in known:
            home = tmp_path_factory.mktemp(kind)
            folder = CASES[kind].make(home / "model")
            whet.export(folder, list(ELSEWHERE), out=home / "exported")
            known[kind] = folder, home / "exported"
        return known[kind]

    return of


def as_json(answers: Any) -> Any:
    """Return answers as they are in JSON."""
    if is_dataclass(answers):
        return {field.name: as_json(getattr(answers, field.name)) for field in fields(answers)}
    if isinstance(answers, dict):
        return {name: as_json(one) for name, one in answers.items()}
    return list(map(as_json, answers)) if isinstance(answers, list | tuple | np.ndarray) else answers


def near(answers: Any, *, within: float = 2e-4) -> Any:
    """Return JSON values that equal others whose numbers are near theirs."""
    if isinstance(answers, dict):
        return {name: near(one, within=within) for name, one in answers.items()}
    if isinstance(answers, list):
        return [near(one, within=within) for one in answers]
    return pytest.approx(float(answers), abs=within) if isinstance(answers, float | np.floating) else answers


def test_every_kind_has_a_predictor():
    assert set(all_predictors()) >= set(all_kinds()) and {"embedding", "reranking"} <= set(all_predictors())


@pytest.mark.parametrize("kind", CASES)
def test_every_form_answers_as_pytorch(made, kind):
    folder, exported = made(kind)
    wanted = whet.load(folder)
    assert wanted.target == "pytorch" and type(wanted) is predictor_named(kind)
    answers = near(as_json(wanted.predict(CASES[kind].inputs)))
    for runtime in ELSEWHERE:
        predictor = whet.load(exported, runtime=runtime, batch_size=3)
        assert type(predictor) is type(wanted) and predictor.max_length == wanted.max_length
        assert as_json(predictor.predict(CASES[kind].inputs)) == answers
        assert predictor.labels == wanted.labels


@pytest.mark.parametrize("kind", CASES)
def test_a_deployment_is_served_as_json(made, kind, tmp_path):
    testing = pytest.importorskip("starlette.testclient", reason="httpx must be installed to ask a server")
    out = whet.deploy(made(kind)[1], tmp_path / "out", runtime="onnxruntime").folder
    assert json.loads((out / "manifest.json").read_text())["kind"] == kind
    spec = importlib.util.spec_from_file_location("serve", out / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client = testing.TestClient(module.app)
    case = CASES[kind]
    answer = client.post("/predict", json=case.request)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()) == len(case.inputs)
    predictor = whet.load(out)
    wanted = predictor.rank(**case.request) if kind == "reranking" else predictor.predict(case.inputs)
    assert answer.json() == near(as_json(wanted), within=1e-6)
    example = client.post("/predict", json=dict(predictor_named(kind).request))
    assert example.status_code == 200, example.text
    assert client.post("/predict", json={"texts": [3]}).status_code == 422
    assert client.get("/openapi.json").status_code == 200


CODE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import json, whet
for kind, folder, inputs in json.loads(sys.argv[1]):
    inputs = [tuple(one) if kind in ("question_answering", "reranking") else one for one in inputs]
    answers = whet.load(folder, runtime="onnxruntime").predict(inputs)
    print(str(answers.sum()) if kind == "embedding" else repr(answers))
assert not set({blocked}) & set(sys.modules)
"""


def test_no_kind_needs_torch(made):
    asked = [(kind, str(made(kind)[1]), case.inputs[:2]) for kind, case in CASES.items()]
    code = CODE.format(blocked=BLOCKED)
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(CASES)


@pytest.mark.parametrize("kind", CASES)
def test_batches_and_single_inputs_are_answered_alike(made, kind):
    predictor, inputs = whet.load(made(kind)[1], runtime="onnxruntime", batch_size=2), CASES[kind].inputs
    together = as_json(predictor(iter(inputs)))
    alone = [as_json(predictor(tuple(one) if isinstance(one, list) else one)) for one in inputs]
    assert together == near(alone)
    assert len(predictor([])) == 0


def test_a_kind_that_is_said_must_be_that_of_the_folder(made):
    with pytest.raises(InvalidModel, match="the kind must be that of the model, but got reranking for"):
        whet.load(made("embedding")[1], kind="reranking", runtime="onnxruntime")


# several labels


def test_labels_above_one_half_are_chosen(made):
    predictor = whet.load(made("multi_label")[0])
    for one, row in zip(predictor(SENTENCES), predictor.logits(SENTENCES), strict=True):
        assert set(one.labels) == {name for name, logit in zip(predictor.labels, row, strict=True) if logit > 0}
        assert one.scores == pytest.approx(dict(zip(predictor.labels, 1 / (1 + np.exp(-row)), strict=True)))
        assert sorted(one.labels, key=one.scores.get, reverse=True) == [*one.labels]


# entities


def test_entities_are_the_words_that_the_model_tags(made):
    folder = made("token_classification")[0]
    predictor, tokenizer = whet.load(made("token_classification")[1], runtime="onnxruntime"), word_tokenizer()
    found = predictor(SENTENCES[3])
    with torch.inference_mode():
        rows = BertForTokenClassification.from_pretrained(folder)(**tokenizer(SENTENCES[3], return_tensors="pt")).logits
    tags = [TAGS[i] for i in rows[0, 1:-1].argmax(-1)]  # one token a word
    words = SENTENCES[3].split()
    assert found and [one.text for one in found] == [
        " ".join(words[span.start : span.end]) for span in tag_module.spans(tags)
    ]
    for one in found:
        assert SENTENCES[3][one.start : one.end] == one.text and 0 < one.score <= 1
    assert predictor(tuple(words)) == predictor([words])[0] == found


def test_words_beyond_the_longest_input_are_in_no_entity(made):
    ends = [one.end for one in whet.load(made("token_classification")[1], runtime="onnxruntime")(LONG)]
    assert ends and max(ends) <= len(" ".join(WORDS[:38]))


class Echo(Session):
    """Gives back the tokens that it reads."""

    def run(self, inputs):
        return {"logits": inputs["input_ids"]}


class Encoded:
    """Knows only how to pad."""

    def __init__(self, *, left: bool) -> None:
        self.padding = Padding(0, left=left)


@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_is_not_read(left):
    about = About(source="", target="", labels=(), max_length=None, batch_size=3, config={})
    rows = [Row([*range(1, length + 1)], [0] * length) for length in (4, 1, 7, 0, 2)]
    found = predictor_named("token_classification")(Echo(), Encoded(left=left), about)._token_outputs(rows)
    assert {i: [*values["logits"]] for i, values in found} == {i: [*row.input_ids] for i, row in enumerate(rows)}


@pytest.mark.parametrize("sentence", [None, 3, ["a", 3], {"a": 1}])
def test_what_is_no_sentence_is_named(made, sentence):
    with pytest.raises(InvalidParameter, match=r"sentences must be texts, or lists of words, but got sentences\[1\]="):
        whet.load(made("token_classification")[0])(["w5", sentence])


@pytest.mark.parametrize("kind", all_kinds())
@pytest.mark.parametrize("inputs", [5, None, 1.5, print])
def test_what_is_neither_one_input_nor_several_is_a_sentence(kind, inputs):
    about = About(source="", target="", labels=("a",), max_length=None, batch_size=3, config={})
    predictor = predictor_named(kind)(Echo(), Encoded(left=False), about)
    for ask in (predictor, predictor.predict):
        with pytest.raises(InvalidParameter, match=r"must be one, or a list of several, but got \w+=.*; correct it"):
            ask(inputs)


# answers


def test_answers_are_those_that_are_measured(made):
    folder = made("question_answering")[0]
    model, tokenizer = load_with_tokenizer(folder)
    questions, contexts = map(list, zip(*QUESTIONS, strict=True))
    examples = Questions(questions, [(("w8", 0),)] * 3, contexts)
    batches = encode(examples, tokenizer, max_length=40, batch_size=2)
    answers = predict(model, batches)
    measured = answers.kind.predictions(answers, batches)
    found = whet.load(made("question_answering")[1], runtime="openvino")(QUESTIONS)
    assert [one.text for one in found] == [*measured]
    for one, (_, context) in zip(found, QUESTIONS, strict=True):
        assert context[one.start : one.end] == one.text and 0 < one.score <= 1


@pytest.mark.parametrize("runtime", ["pytorch", "onnxruntime"])
def test_a_question_that_fills_the_window_is_refused(made, runtime):
    predictor = whet.load(made("question_answering")[1], runtime=runtime)
    with pytest.raises(InvalidData, match="question must have 23 tokens at most to leave room for its context"):
        predictor((" ".join(WORDS[:24]), LONG))
    assert predictor((" ".join(WORDS[:23]), LONG)).text


@pytest.mark.parametrize("question", ["w5", ("w5",), ("w5", None), ["w5", "w6"]])
def test_what_is_no_question_is_named(made, question):
    with pytest.raises(InvalidParameter, match=r"questions must be tuples of a question and its context, but got"):
        whet.load(made("question_answering")[0]).predict([question])


def test_a_model_may_say_that_there_is_no_answer(made):
    predictor = whet.load(made("question_answering")[0])
    said = [predictor.predict(QUESTIONS * 3, may_lack_answer=lacking) for lacking in (False, True)]
    assert all(one.text for one in said[0]) and [one.text or one.start == one.end for one in said[1]]


# vectors


def test_vectors_are_means_of_unit_length(made):
    folder, exported = made("embedding")
    vectors = whet.load(exported, runtime="openvino").predict(SENTENCES)
    assert vectors.shape == (len(SENTENCES), 32) and vectors.dtype == np.float32
    model = AutoModel.from_pretrained(folder)
    for text, vector in zip(SENTENCES, vectors, strict=True):
        with torch.inference_mode():
            states = model(**word_tokenizer()(text, return_tensors="pt", truncation=True, max_length=24))[0][0]
        wanted = states.mean(0)
        np.testing.assert_allclose(vector, wanted / wanted.norm(), atol=1e-5)


def test_vectors_may_be_shorter_and_smaller(made):
    predictor = whet.load(made("embedding")[1], runtime="onnxruntime")
    whole, short = predictor(SENTENCES), predictor(SENTENCES, dimensions=8)
    np.testing.assert_allclose(short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-6)
    small = predictor(SENTENCES, vectors="int8")
    assert small.dtype == np.int8 and (np.abs(small).max(1) == 127).all()
    cosines = (small * whole).sum(1) / np.linalg.norm(small.astype(float), axis=1)
    assert cosines.min() > 0.999
    bits = predictor(SENTENCES, vectors="binary", dimensions=16)
    assert bits.shape == (len(SENTENCES), 2)
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1), whole[:, :16] > 0)
    assert predictor([], dimensions=8).shape == (0, 8) and predictor("w5").shape == (32,)


def test_prompts_go_before_texts(tmp_path):
    settings = {"prompts": {"query": "w50 ", "passage": "w51 w52 "}, "default_prompt_name": "passage"}
    folder = sentence_folder(tmp_path / "model", word_tokenizer(), settings=settings, normalize=False)
    whet.export(folder, ["onnxruntime"], out=tmp_path / "out")
    plain = whet.load(sentence_folder(tmp_path / "plain", word_tokenizer(), normalize=False))
    for predictor in (whet.load(folder), whet.load(tmp_path / "out")):
        assert predictor.prompts == settings["prompts"]
        for name, before in (("query", "w50 "), ("document", "w51 w52 "), ("passage", "w51 w52 "), (None, "w51 w52 ")):
            np.testing.assert_allclose(predictor("w9 w8", prompt=name), plain(f"{before}w9 w8"), atol=1e-5)
    with pytest.raises(InvalidParameter, match="prompt must be one of query, document, passage, but got prompt='x'"):
        predictor("w9", prompt="x")
    np.testing.assert_array_equal(plain("w9", prompt="query"), plain("w9"))
    assert np.linalg.norm(plain("w9", dimensions=8)) != pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimensions": 33}, "1 <= dimensions <= 32 must hold, but got dimensions=33"),
        ({"dimensions": 0}, "1 <= dimensions <= 32 must hold"),
        ({"dimensions": "8"}, "1 <= dimensions <= 32 must hold, but got dimensions='8'"),
        ({"vectors": "int4"}, "vectors must be one of float32, int8, binary, but got vectors='int4'"),
    ],
)
def test_vectors_that_cannot_be_are_a_sentence(made, options, words):
    with pytest.raises(InvalidParameter, match=words):
        whet.load(made("embedding")[0])(SENTENCES, **options)
    with pytest.raises(InvalidParameter, match=r"texts must be texts, but got texts\[0\]="):
        whet.load(made("embedding")[0])([("a", "b")])


# rankings


@pytest.mark.parametrize(
    ("activation", "squashed"),
    [("torch.nn.modules.linear.Identity", False), ("torch.nn.modules.activation.Sigmoid", True)],
)
def test_documents_are_ranked_by_the_score_of_the_model(tmp_path, activation, squashed):
    folder = of_one_score({"sentence_transformers": {"activation_fn": activation}})(tmp_path / "model")
    predictor = whet.load(folder)
    documents = SENTENCES[:6]
    ranked = predictor.rank("w7 w8", documents)
    logits = predictor.logits([("w7 w8", document) for document in documents])[:, 0].astype(float)
    assert [one.index for one in ranked] == [*np.argsort(-logits)]
    assert [documents[one.index] for one in ranked] == [one.text for one in ranked]
    wanted = 1 / (1 + np.exp(-logits)) if squashed else logits
    np.testing.assert_allclose([one.score for one in ranked], np.sort(wanted)[::-1], rtol=1e-5)
    assert predictor.rank("w7 w8", documents, top=2) == ranked[:2] and predictor.rank("w7", []) == []
    assert predictor(("w7 w8", documents[0])) == pytest.approx(wanted[0], rel=1e-5)
    with pytest.raises(
        InvalidParameter, match=r"pairs must be tuples of a query and a document, but got pairs\[0\]='w5'"
    ):
        predictor("w5")
    for wrong in ("w6", 5, None):
        with pytest.raises(InvalidParameter, match="rank must get a query and a list of documents"):
            predictor.rank("w5", wrong)
    with pytest.raises(InvalidParameter, match="1 <= top must hold, but got top='2'"):
        predictor.rank("w5", documents, top="2")


# language models


def language_model(kind: str) -> torch.nn.Module:
    if kind == "language_modeling":
        sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 40, "bos_token_id": 2, "eos_token_id": 3}
        return awkward(GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, pad_token_id=0, **sizes)))
    return awkward(BertForMaskedLM(BertConfig(**SMALL)))


@pytest.mark.parametrize("kind", ["language_modeling", "masked_language_modeling"])
def test_a_language_model_says_how_well_it_predicts(tmp_path, kind):
    model = language_model(kind)
    predictor = whet.load(save(model, word_tokenizer(), tmp_path / "model"))
    assert type(predictor) is predictor_named(kind) and predictor.labels == ()
    [short, long] = predictor([" ".join(WORDS[:5]), LONG])
    assert long.tokens == len(WORDS) and short.tokens == 5
    assert short.perplexity == pytest.approx(predictor(" ".join(WORDS[:5])).perplexity, rel=1e-4)
    if kind == "language_modeling":
        ids = word_tokenizer()(" ".join(WORDS[:5]), return_tensors="pt")["input_ids"][:, :-1]
        with torch.inference_mode():
            assert short.perplexity == pytest.approx(float(model(ids, labels=ids).loss.exp()), rel=1e-4)
    assert predictor([]) == []
    with pytest.raises(InvalidParameter, match=r"must have a token that the model can predict, but got texts\[1\]=''"):
        predictor(["w5 w6", ""])


def test_a_language_model_runs_in_pytorch_alone(tmp_path):
    folder = tmp_path / "model"
    records.save_model(language_model("language_modeling"), word_tokenizer(), folder, recipe=[], origin="tiny", seed=0)
    assert whet.load(folder).target == "pytorch"
    with pytest.raises(InvalidParameter, match="a model for language modeling must run in pytorch, but got runtime="):
        whet.load(folder, runtime="onnxruntime")
    with pytest.raises(InvalidParameter, match=r"must hold what runs without torch, but .* PyTorch alone"):
        whet.deploy(folder, tmp_path / "out")


# servers


def test_a_wrong_request_is_a_sentence(made):
    testing = pytest.importorskip("starlette.testclient", reason="httpx must be installed to ask a server")
    client = testing.TestClient(server(whet.load(made("embedding")[0]), largest=2))
    answer = client.post("/predict", json={"texts": ["w5"], "dimensions": 99})
    assert answer.status_code == 422 and "1 <= dimensions <= 32 must hold" in answer.json()["detail"]
    answer = client.post("/predict", json={"texts": ["w5"] * 3})
    assert (
        answer.status_code == 422
        and answer.json()["detail"] == "texts must be 2 at most, but got 3; send them in parts"
    )
    assert client.post("/predict", json={"texts": ["w5"] * 2, "output": "binary"}).json() != []
