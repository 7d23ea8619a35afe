"""What applications, studies, benchmarks and other packages may import from this wing."""

from .entities import Entity as Entity
from .kinds._perplexity import TextPerplexity as TextPerplexity
from .kinds._texts import Prediction as Prediction
from .kinds.base import Predictor as Predictor
from .kinds.classification import TextClassifier as TextClassifier
from .kinds.embedding import Embedder as Embedder
from .kinds.language_modeling import LanguageModel as LanguageModel
from .kinds.masked_language_modeling import MaskedLanguageModel as MaskedLanguageModel
from .kinds.multi_label import MultiLabelClassifier as MultiLabelClassifier
from .kinds.multi_label import MultiLabelPrediction as MultiLabelPrediction
from .kinds.question_answering import Answer as Answer
from .kinds.question_answering import QuestionAnswerer as QuestionAnswerer
from .kinds.regression import TextRegressor as TextRegressor
from .kinds.reranking import RankedDocument as RankedDocument
from .kinds.reranking import Reranker as Reranker
from .kinds.token_classification import Tagger as Tagger
from .predictor import load as load
from .serving import server as server
from .sessions import ONNX_FILES as ONNX_FILES
from .sessions import OPENVINO_FILES as OPENVINO_FILES
from .sessions import SLOW_FUSIONS as SLOW_FUSIONS
from .sessions import Session as Session
